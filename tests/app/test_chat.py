"""ds4 chat, driven through a pseudo-terminal as a person would, and through pipes.

    DS4=build/ds4 python3 tests/app/test_chat.py [NAME...]

Answers come from the nano model at temperature 0. Needs only the standard library. Each test prints a
line; the last line counts them, and the exit status is 1 if one failed.
"""
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import traceback

DS4 = os.path.abspath(os.environ.get("DS4", "build/ds4"))
GREEDY = ["--temp", "0"]
WAIT_S = 60  # for one answer, also under a sanitizer or an emulator
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\([A-Z0-9]")


class Chat:
    """A chat on a terminal of 24 x 100 characters, with a history of its own."""

    def __init__(self, *options, term="xterm-256color", home=None):
        self.home = home or tempfile.mkdtemp(prefix="ds4-chat-")
        self.is_home_ours = home is None
        self.raw = ""   # all that came
        self.read_to = 0  # what expect has passed
        self.has_editor = True  # until it turns out that the keys stay the terminal's
        pid, self.fd = pty.fork()
        if pid == 0:
            os.environ.update(TERM=term, XDG_STATE_HOME=self.home, LC_ALL="C.UTF-8")
            os.environ.pop("NO_COLOR", None)
            os.execv(DS4, ["ds4", "chat", *GREEDY, *options])
        self.pid = pid
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
        if self.is_home_ours:
            shutil.rmtree(self.home, ignore_errors=True)

    def _more(self, timeout):
        if not select.select([self.fd], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # how Linux tells that the other side is closed
            return False
        self.raw += data.decode("utf-8", "surrogateescape")
        return bool(data)

    def expect(self, pattern, raw=False):
        """What came since the last call, up to the end of the pattern, without escape codes."""
        deadline = time.monotonic() + WAIT_S
        while True:
            text = self.raw[self.read_to:]
            if raw:
                found = re.search(pattern, text, re.S)
                if found:
                    self.read_to += found.end()
                    return text[:found.end()]
            else:
                plain = ESCAPE.sub("", text)
                found = re.search(pattern, plain, re.S)
                if found:
                    self.read_to = len(self.raw)
                    return plain
            if not self._more(max(0.0, deadline - time.monotonic())):
                raise AssertionError(f"no {pattern!r} in {text!r}")

    def ready(self):
        """Waits for the prompt of the next line; returns the text before it."""
        plain = self.expect(r"(^|[\r\n])> $")
        self.await_editor()
        return plain[: plain.rindex(">")].replace("\r", "")

    def await_editor(self):
        """The prompt is written before the keys become the editor's; until then ^C is a signal, and the
        terminal shows what is typed once more."""
        deadline = time.monotonic() + 1  # a chat without an editor never takes them
        while self.has_editor and termios.tcgetattr(self.fd)[3] & termios.ICANON:
            time.sleep(0.01)
            self.has_editor = time.monotonic() < deadline

    def send(self, text):
        os.write(self.fd, text.encode())

    def say(self, line):
        """Sends a line; returns what the chat showed for it, without the echo."""
        self.send(line + "\r")
        shown = self.ready()
        return shown.split("\n", 1)[1] if "\n" in shown else shown

    def wait(self):
        """The exit status."""
        deadline = time.monotonic() + WAIT_S
        while self._more(0.2) and time.monotonic() < deadline:
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status) if hasattr(os, "waitstatus_to_exitcode") else status >> 8


def piped(text, *options, **environment):
    return subprocess.run([DS4, "chat", *GREEDY, *options], input=text.encode(), capture_output=True,
                          timeout=4 * WAIT_S, env={**os.environ, **environment})


def same(found, expected, what=""):
    if found != expected:
        raise AssertionError(f"{what}: found {found!r}, expected {expected!r}")


def contains(text, part):
    if part not in text:
        raise AssertionError(f"found {text!r}, expected {part!r} in it")


# ---- through a pipe -------------------------------------------------------------------------------

def test_piped_prints_answers_only():
    done = piped("Where does Pip live?\nWhat is 17 + 25?\n", TERM="xterm")
    same(done.returncode, 0, "exit status")
    same(done.stderr, b"", "stderr")
    same(b"\x1b" in done.stdout or b"\r" in done.stdout, False, "escape codes")
    lines = done.stdout.decode().splitlines()
    same(len(lines), 2, "lines")
    contains(lines[0], "Pip")
    contains(lines[1], "42")


def test_piped_thinking_stays_hidden():
    done = piped("What is 47 * 6?\n", "--think")
    same(done.returncode, 0, "exit status")
    contains(done.stdout.decode(), "282")
    same(b"think" in done.stdout, False, "markers")
    same(len(done.stdout.splitlines()), 1, "lines")


def test_piped_slash_is_a_message():
    with tempfile.TemporaryDirectory() as folder:
        done = piped(f"/save {folder}/x\n/quit\nHello!\n", "-n", "20")
        same(done.returncode, 0, "exit status")
        same(os.listdir(folder), [], "files")


def test_piped_last_line_without_newline():
    expected = piped("What is 17 + 25?\r\n\r\n").stdout
    contains(expected.decode(), "42")
    same(piped("What is 17 + 25?").stdout, expected, "answer")


def test_piped_full_context_is_an_error():
    done = piped("word " * 400 + "\n", "-c", "64")
    same(done.returncode, 1, "exit status")
    same(done.stdout, b"", "stdout")
    same(done.stderr.startswith(b"ds4 chat: "), True, "stderr")


# ---- conversations --------------------------------------------------------------------------------

def test_turns():
    with Chat() as chat:
        contains(chat.ready(), "/help")
        contains(chat.say("Who is Koda?"), "Koda is a fox")
        contains(chat.say("How old is Koda?"), "years old")
        stats = chat.say("/stats")
        contains(stats, "4 messages")
        same(int(re.search(r"(\d+) of them reused", stats)[1]) > 8, True, "tokens reused")


def test_terminal_and_pipe_agree():
    with Chat() as chat:
        chat.ready()
        lines = ["Hello!", "Who is Koda?", "Tell me about Quill."]
        shown = [chat.say(line).strip() for line in lines]
    same("\n".join(shown) + "\n", piped("\n".join(lines) + "\n").stdout.decode(), "answers")


def test_turn_equals_fresh_run():
    """The second answer, over a reused cache, is that of the whole conversation read at once."""
    with tempfile.TemporaryDirectory() as folder, Chat() as chat:
        chat.ready()
        chat.say("Who is Koda?")
        chat.say(f"/save {folder}/talk")
        second = chat.say("How old is Koda?").strip()
        with open(f"{folder}/talk.json", encoding="utf-8") as file:
            talk = json.load(file)
        talk["messages"].append({"role": "user", "content": "How old is Koda?"})
        with open(f"{folder}/ask.json", "w", encoding="utf-8") as file:
            json.dump(talk, file)
        prompt = subprocess.run([DS4, "render", f"{folder}/ask.json"], capture_output=True, check=True).stdout
        with open(f"{folder}/prompt", "wb") as file:
            file.write(prompt)
        fresh = subprocess.run([DS4, "run", *GREEDY, "--raw", "--json", "-f", f"{folder}/prompt"],
                               capture_output=True, check=True).stdout
        same(second, json.loads(fresh)["text"].strip(), "second answer")


def test_thinking_is_dimmed():
    with Chat() as chat:
        chat.ready()
        chat.say("/think")
        chat.send("What is 47 * 6?\r")
        shown = chat.expect(r"\x1b\[2m.+\x1b\[0m.*282.*> ", raw=True)
        thinking = re.search(r"\x1b\[2m(.+?)\x1b\[0m", shown, re.S)[1]
        same("<think>" in shown or "</think>" in shown, False, "markers")
        same(len(thinking) > 5, True, "thinking")
        # Earlier thinking leaves the prompt, and the conversation goes on.
        contains(chat.say("What is 478 + 256?"), "734")
        chat.say("/nothink")
        chat.read_to = len(chat.raw)
        chat.send("Who is Koda?\r")
        same("\x1b[2m" in chat.expect(r"fox.*> $", raw=True), False, "dimmed text")


def test_no_styles():
    with Chat("--think", term="dumb") as chat:
        chat.ready()
        contains(chat.say("What is 47 * 6?"), "[answer]")
        same("\x1b[2m" in chat.raw, False, "dimmed text")


# ---- commands -------------------------------------------------------------------------------------

def test_help_names_all_commands():
    with Chat() as chat:
        chat.ready()
        text = chat.say("/help")
        for name in "help system think nothink max read save load rewind reset stats quit".split():
            contains(text, "/" + name)
        contains(chat.say("/nonsense"), "no such command")
        contains(chat.say("/read"), "FILE is missing")
        contains(chat.say("/rewind x"), "expected a number")


def test_system():
    with Chat() as chat:
        chat.ready()
        contains(chat.say("/system"), "no system text")
        chat.say("/system Rispondi in italiano.")
        contains(chat.say("/system"), "Rispondi in italiano.")
        first = chat.say("Chi è Rilo?").strip()
    same(first + "\n", piped("Chi è Rilo?\n", "--system", "Rispondi in italiano.").stdout.decode())


def test_max_changes_the_prompt():
    with tempfile.TemporaryDirectory() as folder, Chat() as chat:
        chat.ready()
        chat.say("/max")
        chat.say("What is 38 + 45?")
        chat.say(f"/save {folder}/talk")
        with open(f"{folder}/talk.json", encoding="utf-8") as file:
            talk = json.load(file)
        same((talk["thinking_mode"], talk["reasoning_effort"]), ("thinking", "max"))
        same(bool(talk["messages"][1]["reasoning_content"]), True, "reasoning")


def test_rewind_and_reset():
    with Chat() as chat:
        chat.ready()
        first = chat.say("Who is Koda?")
        chat.say("How old is Koda?")
        chat.say("What is 17 + 25?")
        contains(chat.say("/rewind 3"), "3 turns taken back, 0 messages left")
        same(chat.say("Who is Koda?"), first, "the first answer again")
        contains(chat.say("/rewind"), "1 turn taken back")
        contains(chat.say("/rewind 7"), "0 turns taken back")
        chat.say("Who is Koda?")
        chat.say("/reset")
        contains(chat.say("/stats"), " 0 messages")
        same(chat.say("Who is Koda?"), first, "the first answer after /reset")


def test_read():
    with tempfile.TemporaryDirectory() as folder, Chat() as chat:
        chat.ready()
        with open(f"{folder}/a question", "w", encoding="utf-8") as file:
            file.write("What is 17 + 25?")
        contains(chat.say(f"/read {folder}/a question"), "42")
        contains(chat.say(f"/read {folder}/none"), "none")
        contains(chat.say(f"/read {folder}"), "/read:")


def test_save_and_load():
    with tempfile.TemporaryDirectory() as folder:
        with Chat() as chat:
            chat.ready()
            chat.say("/system You are a helpful assistant")
            chat.say("Who is Koda?")
            contains(chat.say(f"/save {folder}/talk"), "Saved")
            expected = chat.say("How old is Koda?")
        same(sorted(os.listdir(folder)), ["talk", "talk.json"], "files")
        with Chat() as chat:
            chat.ready()
            contains(chat.say(f"/load {folder}/talk"), "Loaded: 2 messages")
            contains(chat.say("/system"), "helpful")
            same(chat.say("How old is Koda?"), expected, "answer after /load")
            same(int(re.search(r"(\d+) of them reused", chat.say("/stats"))[1]) > 8, True, "reused")
        # The messages are enough; a cache that does not fit is told and built again.
        with open(f"{folder}/talk", "wb") as file:
            file.write(b"no snapshot")
        with Chat() as chat:
            chat.ready()
            contains(chat.say(f"/load {folder}/talk"), "built again")
            same(chat.say("How old is Koda?"), expected, "answer without the cache")
            # And a damaged conversation changes nothing.
            with open(f"{folder}/talk.json", "w", encoding="utf-8") as file:
                file.write('{"messages": [{"role": "user", "content": 1}]}')
            contains(chat.say(f"/load {folder}/talk"), "expected a string")
            contains(chat.say("/stats"), "4 messages")


# ---- keys -----------------------------------------------------------------------------------------

def test_ctrl_c_stops_the_answer():
    # At this temperature the text is noise, which does not end by itself.
    with Chat("--temp", "50", "--seed", "1", "-c", "4096") as chat:
        chat.ready()
        chat.send("Tell me a story about Wick.\r")
        chat.expect(r"Wick\.\r\n.{40}")
        chat.send("\x03")
        contains(chat.ready(), "(stopped)")
        stats = chat.say("/stats")
        contains(stats, "2 messages")
        same(int(re.search(r"answer (\d+) tokens", stats)[1]) > 0, True, "tokens of the answer")
        chat.send("And then?\r")
        chat.expect(r"then\?\r\n.{20}")
        chat.send("\x03")
        contains(chat.ready(), "(stopped)")
        contains(chat.say("/stats"), "4 messages")
        contains(chat.say("/rewind 2"), "0 messages left")


def test_ctrl_c_while_the_prompt_is_read():
    with tempfile.TemporaryDirectory() as folder, Chat("--kernels", "ref", "-t", "1") as chat:
        chat.ready()
        with open(f"{folder}/long", "w", encoding="utf-8") as file:
            file.write("One morning, Pip the goose walked to the pond. " * 250)
        chat.send(f"/read {folder}/long\r")
        bar = chat.expect(r"tokens", raw=True)
        contains(bar, "[")
        chat.send("\x03")
        contains(chat.ready(), "taken back")
        contains(chat.say("/stats"), " 0 messages")
        contains(chat.say("What is 17 + 25?"), "42")


def test_progress_bar_goes_away():
    with tempfile.TemporaryDirectory() as folder, Chat("--kernels", "ref", "-t", "1", "-n", "4") as chat:
        chat.ready()
        with open(f"{folder}/long", "w", encoding="utf-8") as file:
            file.write("One morning, Pip the goose walked to the pond. " * 150)
        chat.send(f"/read {folder}/long\r")
        chat.ready()
        contains(chat.raw, "tok/s")
        contains(chat.raw, "ETA")
        after = chat.raw[chat.raw.rindex("ETA"):]
        contains(after, "\r\x1b[K")


def test_ctrl_c_at_the_prompt_forgets_the_line():
    with Chat() as chat:
        chat.ready()
        chat.send("Where does\x03")
        chat.expect(r"\^C\r?\n> $")
        contains(chat.say("What is 17 + 25?"), "42")


def test_ends():
    for keys in "\x04", "/quit\r":
        with Chat() as chat:
            chat.ready()
            chat.send(keys)
            same(chat.wait(), 0, f"exit status after {keys!r}")


def test_continued_line_and_escaped_slash():
    with tempfile.TemporaryDirectory() as folder, Chat("-n", "4") as chat:
        chat.ready()
        chat.send("one\\\r")
        chat.expect(r"\. $")
        chat.say("two")
        chat.say("//three")
        chat.say(f"/save {folder}/talk")
        with open(f"{folder}/talk.json", encoding="utf-8") as file:
            messages = json.load(file)["messages"]
        same([m["content"] for m in messages[::2]], ["one\ntwo", "/three"], "messages")


def test_history():
    home = tempfile.mkdtemp(prefix="ds4-chat-")
    path = f"{home}/ds4/history"
    try:
        with Chat("-n", "4", home=home) as chat:
            chat.ready()
            if not os.path.exists(path):
                raise SkipTest("built without libedit")
            chat.say("What is 17 + 25?")
            chat.send("\x04")
            chat.wait()
        same(os.stat(path).st_mode & 0o777, 0o600, "mode")
        with Chat(home=home) as chat:
            chat.ready()
            chat.send("\x1b[A\r")  # cursor up, return
            contains(chat.ready(), "42")
    finally:
        shutil.rmtree(home)


# ---- all of them ----------------------------------------------------------------------------------

class SkipTest(Exception):
    pass


def pass_over_libedit():
    """A build with the leak sanitizer: libedit keeps the name of a key's function for ever."""
    with tempfile.NamedTemporaryFile("w", suffix=".supp", delete=False) as file:
        file.write("leak:wcsdup\n")
    os.environ["LSAN_OPTIONS"] = f"suppressions={file.name}:print_suppressions=0"
    return file.name


def main():
    wanted = sys.argv[1:]
    suppressions = pass_over_libedit()
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name, test in list(globals().items()):
        if not name.startswith("test_") or wanted and name not in wanted:
            continue
        try:
            test()
            result = "passed"
        except SkipTest as reason:
            result = "skipped"
            print(f"chat: {name}: skipped: {reason}")
        except Exception as problem:
            result = "failed"
            where = traceback.extract_tb(problem.__traceback__)
            line = [frame.lineno for frame in where if frame.name == name]
            print(f"chat: {name}: line {line[-1] if line else '?'}: {problem!r}")
        counts[result] += 1
    os.remove(suppressions)
    print(", ".join(f"{n} {result}" for result, n in counts.items()))
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
