/* chat_texts.c - the fixed texts that the model was trained with, byte for byte.
 *
 *   Source   The prompt encoder published with the model (MIT licence, DeepSeek). docs/prompt.md
 *            lists lengths and SHA-256. */
#include "text/chat_private.h"

const char chat_tools_head[] =
    "## Tools\n"
    "\n"
    "You have access to a set of tools to help answer the user's question. You can "
    "invoke tools by writing a \"<" MARKER_DSML "tool_calls>\" block like the following:\n"
    "\n"
    "<" MARKER_DSML "tool_calls>\n"
    "<" MARKER_DSML "invoke name=\"$TOOL_NAME\">\n"
    "<" MARKER_DSML "parameter name=\"$PARAMETER_NAME\" "
    "string=\"true|false\">$PARAMETER_VALUE</" MARKER_DSML "parameter>\n"
    "...\n"
    "</" MARKER_DSML "invoke>\n"
    "<" MARKER_DSML "invoke name=\"$TOOL_NAME2\">\n"
    "...\n"
    "</" MARKER_DSML "invoke>\n"
    "</" MARKER_DSML "tool_calls>\n"
    "\n"
    "String parameters should be specified as is and set `string=\"true\"`. For all "
    "other types (numbers, booleans, arrays, objects), pass the value in JSON format and "
    "set `string=\"false\"`.\n"
    "\n"
    "If thinking_mode is enabled (triggered by " MARKER_THINK_OPEN "), you MUST output "
    "your complete reasoning inside " MARKER_THINK_OPEN "..." MARKER_THINK_CLOSE " "
    "BEFORE any tool calls or final response.\n"
    "\n"
    "Otherwise, output directly after " MARKER_THINK_CLOSE " with tool calls or final "
    "response.\n"
    "\n"
    "### Available Tool Schemas\n"
    "\n";

const char chat_tools_tail[] =
    "\n"
    "\n"
    "You MUST strictly follow the above defined tool name and parameter schemas to "
    "invoke tool calls.\n";

const char chat_format_head[] =
    "## Response Format:\n"
    "\n"
    "You MUST strictly adhere to the following schema to reply:\n";

const char chat_effort_absolute[] =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the "
    "problem to resolve the root cause, rigorously stress-testing your logic against all "
    "potential paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every "
    "intermediate step, considered alternative, and rejected hypothesis to ensure "
    "absolutely no assumption is left unchecked.\n"
    "\n";

const char chat_effort_beyond[] =
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to "
    "chance: exhaustively decompose the problem into its most fundamental components, "
    "trace every causal chain to its root, and resolve the underlying cause rather than "
    "any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from "
    "multiple angles and are certain that no assumption remains unchecked and no error "
    "remains undiscovered.\n"
    "\n";
