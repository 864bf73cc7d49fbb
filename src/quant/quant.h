/* quant.h - the storage types of a GGUF tensor: block sizes and one scalar codec per type.
 *
 *   A row of n elements is n / block_elems blocks, each block_bytes long, packed without padding.
 *   Layouts stand above each codec (quant/<type>.c). The type table is the only place that lists
 *   types: loaders, kernels and tests iterate over it.
 *
 *   Threads  Everything here is constant and pure.
 *   Errors   None: callers check row lengths against block_elems before they call. */
#ifndef DS4_QUANT_QUANT_H
#define DS4_QUANT_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* GGUF type ids (the numbers stand in files). */
typedef enum {
    QUANT_F32 = 0,
    QUANT_F16 = 1,
    QUANT_Q4_0 = 2,
    QUANT_Q8_0 = 8,
    QUANT_Q2_K = 10,
    QUANT_Q3_K = 11,
    QUANT_Q4_K = 12,
    QUANT_Q5_K = 13,
    QUANT_Q6_K = 14,
    QUANT_IQ2_XXS = 16,
    QUANT_IQ2_XS = 17,
    QUANT_I32 = 26,
    QUANT_I64 = 27,
    QUANT_BF16 = 30,
    QUANT_MXFP4 = 39,
} quant_type;

/* What a matmul over this weight type wants its activations as, in `model` numerics. */
typedef enum {
    ACT_F32,    /* floats: F32, F16, BF16 weights */
    ACT_Q8_32,  /* act_q8_32 blocks:  Q8_0, Q4_0, MXFP4 */
    ACT_Q8_256, /* act_q8_256 blocks: the K and IQ types */
} act_kind;

/* Activations quantised to int8, 32 at a time: x[i] ~ d * qs[i], d = max|x| / 127, nearest even.
 * Kept as two planes per row so that a row's int8 values are contiguous:
 *   row = int8 qs[n], float d[n / 32]                     (n a multiple of 32)
 * and 256 at a time, with sums for the types that have block minimums:
 *   row = int8 qs[n], float d[n / 256], int16 sums[n / 16] (n a multiple of 256) */
enum { ACT_BLOCK_32 = 32, ACT_BLOCK_256 = 256, ACT_SUM_ELEMS = 16 };

typedef struct {
    quant_type  type;
    const char *name;        /* "q8_0"; lower case, as users write it */
    uint32_t    block_elems; /* elements in a block; a row is a multiple of it */
    uint32_t    block_bytes;
    act_kind    act;
    bool        is_matrix; /* a matmul kernel exists (false for I32, I64) */
    /* out[n] <- the row's values, exactly as the format defines them. n: multiple of block_elems. */
    void (*decode_row)(float *out, const void *row, size_t n);
    /* row <- x[n], nearest representable (F32, F16, BF16, Q8_0, Q4_0, MXFP4); NULL: the quantiser
     * with its importance matrix is needed for the type. */
    void (*encode_row)(void *row, const float *x, size_t n);
} quant_info;

/* NULL if the id is no type that ds4 computes with. */
const quant_info *quant_find(uint32_t type);
/* By name, any case; NULL if unknown. */
const quant_info *quant_find_name(const char *name);
/* All types, for iterating. */
const quant_info *quant_table(size_t *n);
/* Block size of any GGUF type id, known to ds4 or not, so that files that hold foreign tensors can
 * be walked; false for retired and unknown ids. */
bool quant_block_size(uint32_t type, uint32_t *block_elems, uint32_t *block_bytes, const char **name);
/* Bytes of a row of n elements (multiple of block_elems); no overflow check: n < 2^48. */
size_t quant_row_bytes(const quant_info *info, size_t n);

/* ---- numbers ---- */

float    f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* nearest even; overflow gives infinity */
float    bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f); /* nearest even; NaN stays NaN */

/* ---- the constant tables of the IQ2 types and of MXFP4 (kernels read them too) ---- */

extern const uint64_t iq2_xxs_grid[256]; /* byte j of an entry: magnitude of element j (8, 25, 43) */
extern const uint64_t iq2_xs_grid[512];
extern const uint8_t  iq2_signs[128];    /* bit j set: element j is negative */
extern const int8_t   mxfp4_values[16];  /* twice the E2M1 value, signed */

/* Test and fuzz helper beside the formats it knows: makes every float in the row finite and modest,
 * so that random bytes become a row of ordinary weights of about the given size. */
void quant_tame_row(quant_type type, void *row, size_t n, float scale);

#endif
