/* The router: which experts a token goes to, and with what weights. */
#include <math.h>

#include "backend/cpu/cpu.h"

static float score_of(float logit, router_score score) {
    if (score == ROUTER_SIGMOID) return 1.0f / (1.0f + expf(-logit));
    float softplus = logit > 20.0f ? logit : log1pf(expf(logit));
    return sqrtf(softplus);
}

static void softmax(float *s, uint32_t n) {
    float max = s[0], sum = 0;
    for (uint32_t i = 1; i < n; i++) max = fmaxf(max, s[i]);
    for (uint32_t i = 0; i < n; i++) sum += s[i] = expf(s[i] - max);
    for (uint32_t i = 0; i < n; i++) s[i] /= sum;
}

/* The k best of s + bias, best first, the lower id of equal ones. Always k different ids, also among
 * NaNs. */
static void choose(int32_t *ids, const float *s, const float *bias, uint32_t n, uint32_t k) {
    for (uint32_t j = 0; j < k; j++) {
        int32_t best = -1;
        float   best_score = 0;
        for (uint32_t e = 0; e < n; e++) {
            bool is_taken = false;
            for (uint32_t i = 0; i < j; i++) is_taken |= ids[i] == (int32_t)e;
            float score = s[e] + (bias ? bias[e] : 0.0f);
            if (!is_taken && (best < 0 || score > best_score)) best = (int32_t)e, best_score = score;
        }
        ids[j] = best;
    }
}

void cpu_router(backend *base, const router_args *a) {
    cpu_backend   *b = cpu_of(base);
    const float   *bias = cpu_ptr(a->bias);
    const int32_t *tid2eid = cpu_ptr(a->tid2eid);
    float         *s = cpu_ptr(a->logits); /* scores take the place of the logits */
    int32_t       *ids = cpu_ptr(a->ids);
    float         *weights = cpu_ptr(a->weights);

    for (uint32_t row = 0; row < b->batch->n_rows; row++, s += a->n_expert, ids += a->k, weights += a->k) {
        if (a->score == ROUTER_SOFTMAX) softmax(s, a->n_expert);
        else
            for (uint32_t e = 0; e < a->n_expert; e++) s[e] = score_of(s[e], a->score);

        if (tid2eid) {
            const int32_t *chosen = tid2eid + (size_t)b->batch->rows[row].token * a->k;
            for (uint32_t j = 0; j < a->k; j++) ids[j] = chosen[j];
        } else {
            choose(ids, s, bias, a->n_expert, a->k);
        }

        float sum = 0;
        for (uint32_t j = 0; j < a->k; j++) sum += s[ids[j]];
        /* The guard is the smallest normal half: scores that vanish give small weights, not NaN. */
        float factor = a->is_normed ? a->scale / fmaxf(sum, 6.1035e-5f) : a->scale;
        for (uint32_t j = 0; j < a->k; j++) weights[j] = s[ids[j]] * factor;
    }
}
