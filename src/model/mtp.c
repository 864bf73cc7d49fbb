/* The MTP block: one more layer that guesses the token after the next. */
#include <string.h>

#include "model/forward_private.h"

static size_t stream_row_bytes(const forward *f) {
    return (size_t)f->c->n_stream * f->c->n_embd * sizeof(float);
}

/* The kept streams of one position. */
static dev_ptr kept_row(const forward *f, uint32_t slot, uint32_t pos) {
    size_t row = (size_t)slot * (FORWARD_SLACK + 1) + pos % (FORWARD_SLACK + 1);
    return dev_add(f->streams, row * stream_row_bytes(f));
}

void forward_keep_streams(forward *f) {
    size_t row_bytes = stream_row_bytes(f);
    for (uint32_t i = 0; i < f->n_last_runs; i++) {
        const step_run *run = &f->last_runs[i];
        uint32_t first = run->n > FORWARD_SLACK + 1 ? run->n - (FORWARD_SLACK + 1) : 0;
        for (uint32_t j = first; j < run->n; j++)
            f->ops->copy(f->b, kept_row(f, run->slot, run->pos + j),
                         dev_add(f->hc, (run->first + j) * row_bytes), row_bytes);
    }
    f->n_last_runs = 0;
}

/* The streams of a position: still in the last step's rows, or kept from an earlier one. */
static dev_ptr streams_of(const forward *f, uint32_t slot, uint32_t pos) {
    for (uint32_t i = 0; i < f->n_last_runs; i++) {
        const step_run *run = &f->last_runs[i];
        if (run->slot == slot && pos >= run->pos && pos < run->pos + run->n)
            return dev_add(f->hc, (run->first + pos - run->pos) * stream_row_bytes(f));
    }
    return kept_row(f, slot, pos);
}

ds4_status forward_draft(forward *f, const step_batch *batch, float *logits, ds4_error *err) {
    const config      *c = f->c;
    const mtp_weights *m = &f->w->mtp;
    const backend_ops *op = f->ops;
    uint32_t           n = batch->n_rows, n_vec = n * c->n_stream;
    size_t             row_bytes = stream_row_bytes(f);
    f->n_rows = n;
    op->step_begin(f->b, batch);

    /* 1. every stream of position p, normed and projected */
    for (uint32_t i = 0; i < n; i++)
        op->copy(f->b, dev_add(f->draft_in, i * row_bytes),
                 streams_of(f, batch->rows[i].slot, batch->rows[i].pos), row_bytes);
    op->norm(f->b, &(norm_args){.out = f->draft_in, .in = f->draft_in, .w = m->hnorm, .n_vec = n_vec,
                                .n = c->n_embd, .eps = c->eps});
    act_rows h = forward_act(f, f->draft_in, n_vec, c->n_embd, (const weight *const[]){&m->h_proj, NULL});
    op->matmul(f->b, &(matmul_args){.out = f->draft_hc, .x = h, .w = &m->h_proj, .n_rows = n_vec,
                                    .n_groups = 1});

    /* 2. plus the embedding of the token at p + 1, the same in every stream */
    op->embed(f->b, &(embed_args){.out = f->x, .table = &f->w->embed, .n_streams = 1});
    op->norm(f->b, &(norm_args){.out = f->x, .in = f->x, .w = m->enorm, .n_vec = n, .n = c->n_embd,
                                .eps = c->eps});
    act_rows e = forward_act(f, f->x, n, c->n_embd, (const weight *const[]){&m->e_proj, NULL});
    op->matmul(f->b, &(matmul_args){.out = f->y, .x = e, .w = &m->e_proj, .n_rows = n, .n_groups = 1});
    op->hc_post(f->b, &(hc_post_args){.hc = f->draft_hc, .y = f->y, .n_streams = c->n_stream,
                                      .n_embd = c->n_embd});

    /* 3. a layer of its own, then the model's vocabulary head behind its own reduction and norm */
    forward_block(f, &m->block, c->n_layer, f->draft_hc);
    if (batch->n_logits > 0)
        op->head(f->b, &(head_args){.logits = f->logits, .hc = f->draft_hc, .hc_site = &m->head,
                                    .norm = m->norm, .output = &f->w->output, .eps = c->eps});
    DS4_TRY(op->step_end(f->b, err));
    op->read(f->b, logits, f->logits, (size_t)batch->n_logits * c->n_vocab * sizeof *logits);
    return DS4_OK;
}

size_t forward_streams_bytes(const forward *f) {
    return f->limits.has_mtp ? (FORWARD_SLACK + 1) * stream_row_bytes(f) : 0;
}

void forward_read_streams(forward *f, uint32_t slot, void *to) {
    forward_keep_streams(f);
    f->ops->read(f->b, to, kept_row(f, slot, 0), forward_streams_bytes(f));
}

void forward_write_streams(forward *f, uint32_t slot, const void *from) {
    forward_keep_streams(f); /* the last step's rows may be of what the slot held before */
    f->ops->write(f->b, kept_row(f, slot, 0), from, forward_streams_bytes(f));
}
