// Decoding and prompt processing over 4-bit and 8-bit weights, for processors with AVX-512 and VNNI, or with AVX2.
//
// Weights are quantized in groups of 32 inputs, each with a scale and, at 4 bits, a smallest value (as GGUF's Q4_1 and
// Q8_0); activations to 8 bits in the same groups, so that a product is a sum of integer dot products (VNNI's dpbusd).
// What is computed for a token does not depend on the other tokens of the pass, nor on the number of threads: the order
// of every sum is fixed.
//
// Layout of packed weights, for outputs in blocks of 16 and inputs in groups of 32, block after block:
//   4 bits: 256 bytes of levels, 16 scales, 16 smallest values (fp16)
//   8 bits: 512 bytes of levels + 128, 16 scales (fp16)
// Levels lie as dpbusd reads them: four consecutive inputs of each of 16 outputs in 64 bytes. At 4 bits, one vector holds
// eight inputs: four in the low halves of its bytes, the next four in the high ones.
//
// A matrix may have a low-rank update beside it (LoRA), B A: A is packed at 8 bits, B kept in bf16.

#include <omp.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <thread>
#include <type_traits>

#include "vectors.h"

namespace {

constexpr int kGroup = 32;
constexpr int kBlock = 16;
// Rows (tokens) whose quantized activations are kept side by side, and summed at once.
constexpr int kRows = 64;

enum Activation { kSilu = 0, kGelu = 1, kGeluTanh = 2, kRelu = 3 };
enum NormKind { kNoNorm = 0, kRms = 1, kLayer = 2 };
enum QkNorm { kQkNone = 0, kQkHead = 1, kQkFull = 2 };

}  // namespace

extern "C" {

struct Linear {
    const uint8_t* weight;
    const float* bias;
    int32_t outputs;
    int32_t inputs;
    int32_t bits;
    // Of a low-rank update, or 0: a multiple of 16.
    int32_t rank;
    // (parts * rank, inputs) at 8 bits: joined matrices have an update each, those of the first outputs first.
    const uint8_t* low_in;
    // bf16 (blocks of outputs, rank, 16)
    const uint16_t* low_out;
    int32_t parts;
    // Blocks where the second and the third part begin.
    int32_t second, third;
    int32_t unused;
};

struct Norm {
    const float* weight;
    const float* bias;
    int32_t kind;
    float eps;
};

struct LayerData {
    Norm attn_norm, mlp_norm, attn_post_norm, mlp_post_norm, q_norm, k_norm;
    Linear qkv, o, up, down;
    int32_t window;  // 0: all that came before
    int32_t local;   // which of the two rotations
};

struct ModelData {
    const LayerData* layers;
    int32_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff;
    int32_t activation, gated, parallel, post, qk_norm, rotary_dim;
    float scale, softcap;
    Norm final_norm;
};

struct Pass {
    float* x;                 // (tokens, d_model): embeddings in, normalised hidden states out
    const int32_t* rows;      // (tokens,): row of the cache
    const int32_t* positions; // (tokens,)
    const float* cos;         // (tokens, rotary_dim), of full layers
    const float* sin;
    const float* cos_local;   // the same of sliding layers
    const float* sin_local;
    uint16_t* keys;           // bf16 (layer, row, kv_head, slot, head_dim)
    uint16_t* values;
    int64_t layer_stride, row_stride, head_stride;  // in elements
    uint8_t* scratch;         // `scratch_bytes` bytes, aligned to 64
    const int32_t* wanted;    // (wanted,): the tokens whose states are wanted, in order; they become the first of x
    // (tokens, home_stride): the row of the cache in which each position of a token's text lies, up to its own; null
    // where all lie in its own row. `shared`: how many positions from the first on lie where those of the token before
    // it do. All tokens of such a pass are wanted.
    const int32_t* homes;
    const int32_t* shared;
    int64_t home_stride;
    int32_t n_tokens;
    int32_t n_wanted;
    int32_t n_threads;
    int32_t unused;
};
}

namespace {

size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

size_t bytes_per_block(int bits) { return bits == 4 ? 320 : 544; }

// ---- Numbers ----------------------------------------------------------------------------------------------------

inline Floats sigmoid(Floats x) {
    const Floats one = all(1.0f);
    return divide(one, add(one, exponential(subtract(zeros(), x))));
}

inline Floats activate(Floats x, int kind) {
    if (kind == kSilu) return multiply(x, sigmoid(x));
    if (kind == kRelu) return greater(x, zeros());
    if (kind == kGeluTanh) {
        // x * (1 + tanh(u)) / 2 = x * sigmoid(2u)
        const Floats cube = multiply(multiply(x, x), x);
        const Floats u = fused(all(0.044715f), cube, x);
        return multiply(x, sigmoid(multiply(u, all(1.5957691216057308f))));
    }
    alignas(64) float values[16];
    store(values, x);
    for (float& value : values) value = 0.5f * value * (1.0f + std::erf(value * 0.70710678118654752f));
    return load(values);
}

// ---- Quantization -----------------------------------------------------------------------------------------------

// Activations of many rows: chunks of up to kRows rows, each (group, row, 32) int8 with (group, row) scales.
struct Quantized {
    int8_t* levels;
    float* scales;
    float* sums;       // scale times the sum of the levels: what 4-bit weights' smallest values are multiplied by
    int32_t* offsets;  // -128 times the sum of the levels: 8-bit weights are kept with 128 added
    int inputs;
    int rows;
    float* low;        // (row, parts * rank): the rows times A of a low-rank update

    int rows_in(int chunk) const { return rows - chunk * kRows < kRows ? rows - chunk * kRows : kRows; }
    int groups() const { return inputs / kGroup; }
    size_t level_at(int chunk) const { return (size_t)chunk * kRows * inputs; }
    size_t scale_at(int chunk) const { return (size_t)chunk * kRows * groups(); }
};

inline void quantize_group(Floats a, Floats b, Quantized& q, size_t level, size_t scale) {
    const float largest = greatest_of(greater(magnitude(a), magnitude(b)));
    const float step = largest / 127.0f;
    const Floats inverse = all(largest > 0 ? 127.0f / largest : 0.0f);
    const Ints ia = to_ints(multiply(a, inverse));
    const Ints ib = to_ints(multiply(b, inverse));
    store_signed(q.levels + level, ia);
    store_signed(q.levels + level + 16, ib);
    q.scales[scale] = step;
    const int total = sum_of(add(ia, ib));
    q.sums[scale] = step * (float)total;
    q.offsets[scale] = -128 * total;
}

// Quantize one row of `inputs` floats, already normalised.
void quantize_row(const float* x, Quantized& q, int row) {
    const int chunk = row / kRows, inside = row % kRows, count = q.rows_in(chunk);
    for (int g = 0; g < q.groups(); g++) {
        const size_t at = (size_t)g * count + inside;
        quantize_group(load(x + g * kGroup), load(x + g * kGroup + 16), q,
                       q.level_at(chunk) + at * kGroup, q.scale_at(chunk) + at);
    }
}

// Normalise `width` floats (a multiple of 16) into `out`.
void normalise(const Norm& norm, const float* x, float* out, int width) {
    Floats mean = zeros();
    if (norm.kind == kLayer) {
        Floats sum = zeros();
        for (int i = 0; i < width; i += 16) sum = add(sum, load(x + i));
        mean = all(sum_of(sum) / (float)width);
    }
    Floats squares = zeros();
    for (int i = 0; i < width; i += 16) {
        const Floats v = subtract(load(x + i), mean);
        squares = fused(v, v, squares);
    }
    const Floats scale = all(1.0f / std::sqrt(sum_of(squares) / (float)width + norm.eps));
    for (int i = 0; i < width; i += 16) {
        const Floats v = multiply(subtract(load(x + i), mean), scale);
        const Floats bias = norm.bias ? load(norm.bias + i) : zeros();
        store(out + i, fused(v, load(norm.weight + i), bias));
    }
}

void quantize_normalised(const Norm& norm, const float* x, float* buffer, Quantized& q, int row) {
    if (norm.kind == kNoNorm) return quantize_row(x, q, row);
    normalise(norm, x, buffer, q.inputs);
    quantize_row(buffer, q, row);
}

// ---- Products ---------------------------------------------------------------------------------------------------

template <int kBits>
inline void load_levels(const uint8_t* w, Ints* levels) {
    if constexpr (kBits == 4) {
        const Ints low = all_ints(0x0f0f0f0f);
        for (int i = 0; i < 4; i++) {
            const Ints pairs = load_ints(w + 64 * i);
            levels[2 * i] = both(pairs, low);
            levels[2 * i + 1] = both(shift_right<4>(pairs), low);
        }
    } else {
        for (int i = 0; i < 8; i++) levels[i] = load_ints(w + 64 * i);
    }
}

template <int kBits>
inline void load_scales(const uint8_t* w, Floats& scale, Floats& least) {
    constexpr int at = kBits == 4 ? 256 : 512;
    scale = from_half(w + at);
    if constexpr (kBits == 4) least = from_half(w + at + 32);
}

// Read as one number, wherever it lies.
typedef int32_t __attribute__((may_alias, aligned(1))) Four;

// `from` is what the sum begins with.
template <int kBits>
inline Floats dot(const Ints* levels, const int8_t* x, Ints from) {
    const Four* fours = (const Four*)x;
    Ints a = from, b = zero_ints();
    for (int i = 0; i < 8; i += 2) {
        a = dot4<kBits>(a, levels[i], all_ints(fours[i]));
        b = dot4<kBits>(b, levels[i + 1], all_ints(fours[i + 1]));
    }
    return to_floats(add(a, b));
}

// Ask for what is read a few groups later: weights come from memory in one long stream.
template <int kBits>
inline void prefetch(const uint8_t* w) {
    constexpr int ahead = 2048 / (int)(kBits == 4 ? 320 : 544) * (kBits == 4 ? 320 : 544);
    for (int line = 0; line < (kBits == 4 ? 320 : 544); line += 64) {
        _mm_prefetch((const char*)(w + ahead + line), _MM_HINT_T0);
    }
}

// What each row's integer sum begins with, and what is added for the smallest values.
template <int kBits>
inline Ints begin(const int32_t* offsets, int row) {
    return kBits == 8 && kUnsigned ? all_ints(offsets[row]) : zero_ints();
}

template <int kBits>
inline Floats finish(Floats sum, Floats least, const float* totals, int row) {
    return kBits == 8 ? sum : fused(least, all(totals[row]), sum);
}

#if !NLPKIT_WIDE
// Rows from which on it pays to go twice over the weights.
constexpr int kFewRows = 4;

template <int kBits>
void half_tiles(const uint8_t* block, const Quantized& q, int chunk, int from, int to, Floats* sums);
#endif

// Products of a block of 16 outputs with rows `from` to `to` - 1 of one chunk: sums, 16 for each row.
template <int kBits>
void tile(const uint8_t* w, const Quantized& q, int chunk, int from, int to, Floats* sums) {
    const int count = q.rows_in(chunk), groups = q.groups();
    const int8_t* x = q.levels + q.level_at(chunk);
    const float *steps = q.scales + q.scale_at(chunk), *totals = q.sums + q.scale_at(chunk);
    const int32_t* offsets = q.offsets + q.scale_at(chunk);
    Ints levels[8];
    Floats scale, least = zeros();
    if (to - from == 1) {
        Floats sum = zeros();
        for (int g = 0; g < groups; g++, w += bytes_per_block(kBits)) {
            prefetch<kBits>(w);
            load_levels<kBits>(w, levels);
            load_scales<kBits>(w, scale, least);
            const int at = g * count + from;
            const Floats product = dot<kBits>(levels, x + (size_t)at * kGroup, begin<kBits>(offsets, at));
            sum = fused(product, multiply(scale, all(steps[at])), sum);
            sum = finish<kBits>(sum, least, totals, at);
        }
        sums[from] = sum;
        return;
    }
#if !NLPKIT_WIDE
    if (to - from >= kFewRows) return half_tiles<kBits>(w, q, chunk, from, to, sums);
#endif
    for (int r = from; r < to; r++) sums[r] = zeros();
    for (int g = 0; g < groups; g++, w += bytes_per_block(kBits)) {
        prefetch<kBits>(w);
        load_levels<kBits>(w, levels);
        load_scales<kBits>(w, scale, least);
        const size_t at = (size_t)g * count;
        for (int r = from; r < to; r++) {
            const Floats product = dot<kBits>(levels, x + (at + r) * kGroup, begin<kBits>(offsets + at, r));
            const Floats sum = fused(product, multiply(scale, all(steps[at + r])), sums[r]);
            sums[r] = finish<kBits>(sum, least, totals + at, r);
        }
    }
}

#if !NLPKIT_WIDE

// The same with half of the outputs at a time: all levels of a group then stay in registers while rows go by. Sums have
// the same order.
template <int kBits>
void half_tiles(const uint8_t* block, const Quantized& q, int chunk, int from, int to, Floats* sums) {
    const int count = q.rows_in(chunk), groups = q.groups();
    const int8_t* x = q.levels + q.level_at(chunk);
    const float *steps = q.scales + q.scale_at(chunk), *totals = q.sums + q.scale_at(chunk);
    const int32_t* offsets = q.offsets + q.scale_at(chunk);
    for (int r = from; r < to; r++) sums[r] = zeros();
    for (int half = 0; half < 2; half++) {
        const uint8_t* w = block;
        float* out = (float*)sums + 8 * half;
        for (int g = 0; g < groups; g++, w += bytes_per_block(kBits)) {
            if (half == 0) prefetch<kBits>(w);
            __m256i levels[8];
            if constexpr (kBits == 4) {
                const __m256i low = _mm256_set1_epi32(0x0f0f0f0f);
                for (int i = 0; i < 4; i++) {
                    const __m256i pairs = _mm256_loadu_si256((const __m256i*)(w + 64 * i + 32 * half));
                    levels[2 * i] = _mm256_and_si256(pairs, low);
                    levels[2 * i + 1] = _mm256_and_si256(_mm256_srli_epi32(pairs, 4), low);
                }
            } else {
                for (int i = 0; i < 8; i++) levels[i] = ready(_mm256_loadu_si256((const __m256i*)(w + 64 * i + 32 * half)));
            }
            Floats both_scales, both_least = zeros();
            load_scales<kBits>(w, both_scales, both_least);
            const __m256 scale = half ? both_scales.b : both_scales.a, least = half ? both_least.b : both_least.a;
            const size_t at = (size_t)g * count;
            const Four* fours = (const Four*)(x + (at + from) * kGroup);
            for (int r = from; r < to; r++, fours += 8) {
                __m256i even = kBits == 8 && kUnsigned ? _mm256_set1_epi32(offsets[at + r]) : _mm256_setzero_si256();
                __m256i odd = _mm256_setzero_si256();
                for (int i = 0; i < 8; i += 2) {
                    even = dot4_ready<kBits>(even, levels[i], _mm256_set1_epi32(fours[i]));
                    odd = dot4_ready<kBits>(odd, levels[i + 1], _mm256_set1_epi32(fours[i + 1]));
                }
                const __m256 product = _mm256_cvtepi32_ps(_mm256_add_epi32(even, odd));
                const __m256 step = _mm256_mul_ps(scale, _mm256_set1_ps(steps[at + r]));
                __m256 sum = _mm256_fmadd_ps(product, step, _mm256_load_ps(out + 16 * r));
                if (kBits == 4) sum = _mm256_fmadd_ps(least, _mm256_set1_ps(totals[at + r]), sum);
                _mm256_store_ps(out + 16 * r, sum);
            }
        }
    }
}

#endif

// The same for two blocks of outputs at once: activations are loaded once for both.
template <int kBits>
void two_tiles(const uint8_t* w, const uint8_t* w2, const Quantized& q, int chunk, Floats* sums, Floats* sums2) {
    const int count = q.rows_in(chunk), groups = q.groups();
    const int8_t* x = q.levels + q.level_at(chunk);
    const float *steps = q.scales + q.scale_at(chunk), *totals = q.sums + q.scale_at(chunk);
    const int32_t* offsets = q.offsets + q.scale_at(chunk);
    Ints levels[8], levels2[8];
    Floats scale, scale2, least = zeros(), least2 = least;
    for (int r = 0; r < count; r++) sums[r] = sums2[r] = zeros();
    for (int g = 0; g < groups; g++, w += bytes_per_block(kBits), w2 += bytes_per_block(kBits)) {
        prefetch<kBits>(w);
        prefetch<kBits>(w2);
        load_levels<kBits>(w, levels);
        load_levels<kBits>(w2, levels2);
        load_scales<kBits>(w, scale, least);
        load_scales<kBits>(w2, scale2, least2);
        const size_t at = (size_t)g * count;
        const Four* fours = (const Four*)(x + at * kGroup);
        for (int r = 0; r < count; r++, fours += 8) {
            Ints a = begin<kBits>(offsets + at, r), b = zero_ints(), c = a, d = b;
            for (int i = 0; i < 8; i += 2) {
                const Ints first = all_ints(fours[i]), second = all_ints(fours[i + 1]);
                a = dot4<kBits>(a, levels[i], first);
                b = dot4<kBits>(b, levels[i + 1], second);
                c = dot4<kBits>(c, levels2[i], first);
                d = dot4<kBits>(d, levels2[i + 1], second);
            }
            const Floats step = all(steps[at + r]);
            const Floats one = to_floats(add(a, b));
            const Floats two = to_floats(add(c, d));
            const Floats sum = fused(one, multiply(scale, step), sums[r]);
            const Floats sum2 = fused(two, multiply(scale2, step), sums2[r]);
            sums[r] = finish<kBits>(sum, least, totals + at, r);
            sums2[r] = finish<kBits>(sum2, least2, totals + at, r);
        }
    }
}

struct Range {
    int begin, end;
};

Range share(int count, int thread, int threads) {
    return {(int)((int64_t)count * thread / threads), (int)((int64_t)count * (thread + 1) / threads)};
}

const uint8_t* block_at(const Linear& linear, int block) {
    return linear.weight + (size_t)block * (linear.inputs / kGroup) * bytes_per_block(linear.bits);
}

int outputs_in(const Linear& linear, int block) {
    const int rest = linear.outputs - block * kBlock;
    return rest < kBlock ? rest : kBlock;
}

void add_bias(const Linear& linear, int block, int count, Floats* sums) {
    if (!linear.bias) return;
    const Floats bias = load(linear.bias + block * kBlock, outputs_in(linear, block));
    for (int r = 0; r < count; r++) sums[r] = add(sums[r], bias);
}

int low_width(const Linear& linear) { return linear.parts * linear.rank; }

// Multiply rows by A of a matrix' low-rank update, if it has one; into q.low.
void reduce(const Linear& linear, const Quantized& q, Range rows) {
    const int width = low_width(linear);
    const size_t block_bytes = (size_t)q.groups() * bytes_per_block(8);
    alignas(64) Floats sums[kRows];
    for (int first = rows.begin; width && first < rows.end;) {
        const int chunk = first / kRows, start = chunk * kRows;
        const int last = rows.end < start + kRows ? rows.end : start + kRows;
        for (int block = 0; block < width / kBlock; block++) {
            tile<8>(linear.low_in + block * block_bytes, q, chunk, first - start, last - start, sums);
            for (int r = first; r < last; r++) {
                store(q.low + (size_t)r * width + block * kBlock, sums[r - start]);
            }
        }
        first = last;
    }
}

// Multiply what `reduce` has made by B, and add it.
void add_low_rank(const Linear& linear, int block, const Quantized& q, int chunk, Floats* sums) {
    const int width = low_width(linear), part = (block >= linear.second) + (block >= linear.third);
    const float* low = q.low + (size_t)chunk * kRows * width + part * linear.rank;
    const uint16_t* out = linear.low_out + (size_t)block * linear.rank * kBlock;
    for (int first = 0; first < linear.rank; first += 16, low += 16, out += 16 * kBlock) {
        Floats b[16];
        for (int j = 0; j < 16; j++) b[j] = from_bf16(out + j * kBlock);
        for (int r = 0; r < q.rows_in(chunk); r++) {
            const float* t = low + (size_t)r * width;
            Floats even = sums[r], odd = multiply(all(t[1]), b[1]);
            for (int j = 0; j < 16; j += 2) {
                even = fused(all(t[j]), b[j], even);
                if (j) odd = fused(all(t[j + 1]), b[j + 1], odd);
            }
            sums[r] = add(even, odd);
        }
    }
}

// What a matrix has beside its levels.
void complete(const Linear& linear, int block, const Quantized& q, int chunk, Floats* sums) {
    if (linear.rank) add_low_rank(linear, block, q, chunk, sums);
    add_bias(linear, block, q.rows_in(chunk), sums);
}

void any_tile(const Linear& linear, int block, const Quantized& q, int chunk, Floats* sums) {
    if (linear.bits == 4) {
        tile<4>(block_at(linear, block), q, chunk, 0, q.rows_in(chunk), sums);
    } else {
        tile<8>(block_at(linear, block), q, chunk, 0, q.rows_in(chunk), sums);
    }
    complete(linear, block, q, chunk, sums);
}

void any_tiles(const Linear& linear, int block, int block2, const Quantized& q, int chunk, Floats* sums, Floats* sums2) {
    if (!kWide || q.rows_in(chunk) < 16) {
        // With few rows, reading weights is what takes the time: one stream of them at a time. Nor are there registers
        // for two with AVX2.
        any_tile(linear, block, q, chunk, sums);
        return any_tile(linear, block2, q, chunk, sums2);
    }
    if (linear.bits == 4) {
        two_tiles<4>(block_at(linear, block), block_at(linear, block2), q, chunk, sums, sums2);
    } else {
        two_tiles<8>(block_at(linear, block), block_at(linear, block2), q, chunk, sums, sums2);
    }
    complete(linear, block, q, chunk, sums);
    complete(linear, block2, q, chunk, sums2);
}

int n_blocks(int outputs) { return (outputs + kBlock - 1) / kBlock; }
int n_chunks(int rows) { return (rows + kRows - 1) / kRows; }

template <bool kAdd>
void store_block(const Linear& linear, int block, int first, int count, Floats* sums, float* out, size_t stride) {
    const int outputs = outputs_in(linear, block);
    for (int r = 0; r < count; r++) {
        float* at = out + (size_t)(first + r) * stride + block * kBlock;
        if (kAdd) sums[r] = add(sums[r], load(at, outputs));
        store(at, sums[r], outputs);
    }
}

// Rows times a matrix, this thread's share of the outputs; added to what is there, or not.
template <bool kAdd>
void product(const Linear& linear, const Quantized& q, float* out, size_t stride, int thread, int threads) {
    const Range blocks = share(n_blocks(linear.outputs), thread, threads);
    alignas(64) Floats sums[2][kRows];
    for (int chunk = 0; chunk < n_chunks(q.rows); chunk++) {
        const int count = q.rows_in(chunk), first = chunk * kRows;
        int block = blocks.begin;
        for (; block + 1 < blocks.end; block += 2) {
            any_tiles(linear, block, block + 1, q, chunk, sums[0], sums[1]);
            store_block<kAdd>(linear, block, first, count, sums[0], out, stride);
            store_block<kAdd>(linear, block + 1, first, count, sums[1], out, stride);
        }
        if (block < blocks.end) {
            any_tile(linear, block, q, chunk, sums[0]);
            store_block<kAdd>(linear, block, first, count, sums[0], out, stride);
        }
    }
}

// The hidden layer of the MLP: act(gate) * up where it is gated (gates first in the matrix), else act(up).
void hidden_layer(const ModelData& m, const Linear& up, const Quantized& q, float* out, int thread, int threads) {
    const int half = m.d_ff / kBlock;
    const Range blocks = share(half, thread, threads);
    alignas(64) Floats sums[2][kRows];
    for (int chunk = 0; chunk < n_chunks(q.rows); chunk++) {
        for (int block = blocks.begin; block < blocks.end; block++) {
            if (m.gated) {
                any_tiles(up, block, block + half, q, chunk, sums[0], sums[1]);
            } else {
                any_tile(up, block, q, chunk, sums[0]);
            }
            for (int r = 0; r < q.rows_in(chunk); r++) {
                Floats value = activate(sums[0][r], m.activation);
                if (m.gated) value = multiply(value, sums[1][r]);
                store(out + (size_t)(chunk * kRows + r) * m.d_ff + block * kBlock, value);
            }
        }
    }
}

// ---- Attention --------------------------------------------------------------------------------------------------

void rotate(float* head, const float* cos, const float* sin, int dim) {
    const int half = dim / 2;
    for (int i = 0; i < half; i++) {
        const float a = head[i], b = head[i + half];
        head[i] = a * cos[i] - b * sin[i];
        head[i + half] = b * cos[i + half] + a * sin[i + half];
    }
}

// Norm and rotation of a token's queries and keys; its keys and values go into the cache.
void place(const ModelData& m, const LayerData& layer, const Pass& p, int index, float* qkv, int token) {
    const int dim = m.head_dim, q_width = m.n_heads * dim, kv_width = m.n_kv_heads * dim;
    float *q = qkv, *k = qkv + q_width, *v = k + kv_width;
    if (m.qk_norm == kQkFull) {
        normalise(layer.q_norm, q, q, q_width);
        normalise(layer.k_norm, k, k, kv_width);
    } else if (m.qk_norm == kQkHead) {
        for (int h = 0; h < m.n_heads; h++) normalise(layer.q_norm, q + h * dim, q + h * dim, dim);
        for (int h = 0; h < m.n_kv_heads; h++) normalise(layer.k_norm, k + h * dim, k + h * dim, dim);
    }
    if (m.rotary_dim) {
        const float* cos = (layer.local ? p.cos_local : p.cos) + (size_t)token * m.rotary_dim;
        const float* sin = (layer.local ? p.sin_local : p.sin) + (size_t)token * m.rotary_dim;
        for (int h = 0; h < m.n_heads + m.n_kv_heads; h++) rotate(qkv + h * dim, cos, sin, m.rotary_dim);
    }
    for (int h = 0; h < m.n_kv_heads; h++) {
        const size_t at = index * p.layer_stride + p.rows[token] * p.row_stride + h * p.head_stride +
                          (size_t)p.positions[token] * dim;
        for (int i = 0; i < dim; i += 16) {
            to_bf16(p.keys + at + i, load(k + h * dim + i));
            to_bf16(p.values + at + i, load(v + h * dim + i));
        }
    }
}

struct Query {
    const float* q;
    float* out;
    int first, last;  // slots that it sees, `last` included
};

// Slots that are looked at together, queries, and vectors of a head's numbers: as many as there are registers for.
constexpr int kSlots = 32;
constexpr int kQueries = kWide ? 4 : 2;
constexpr int kColumns = kWide ? 4 : 2;

// Where the slots of one text and one head lie in the cache, of keys or of values.
struct Slots {
    const uint16_t* base;  // of the text's row, or of the first row where there are homes
    const int32_t* homes;
    int64_t row_stride;
    int dim;

    const uint16_t* at(int slot) const {
        return base + (homes ? homes[slot] * row_stride : 0) + (size_t)slot * dim;
    }
};

// Keys of up to 16 slots as columns of floats: (dim, kSlots), from column `column` on; slots from `count` on are zero.
inline void transpose_keys(const Slots& keys, int slot, int count, float* columns, int column) {
    const int dim = keys.dim;
    const uint16_t* lines[16];
    for (int s = 0; s < 16; s++) lines[s] = s < count ? keys.at(slot + s) : nullptr;
    const Ints high = all_ints((int)0xffff0000);
    for (int i = 0; i < dim; i += 32) {
        // Two bf16 numbers make one of 32 bits.
        const int pairs = dim - i >= 32 ? 16 : 8;
        Ints v[16];
        for (int s = 0; s < 16; s++) {
            v[s] = s < count ? load_first_ints(lines[s] + i, pairs) : zero_ints();
        }
        transpose16(v);
        for (int j = 0; j < 16 && i + 2 * j < dim; j++) {
            float* at = columns + (size_t)(i + 2 * j) * kSlots + column;
            store_ints(at, shift_left<16>(v[j]));
            store_ints(at + kSlots, both(v[j], high));
        }
    }
}

// Scores of kN queries and kSlots slots.
template <int kN>
void score(const Query* queries, const float* columns, int dim, Floats scale, float* weights, size_t stride) {
    Floats sums[kN][2];
    for (auto& pair : sums) pair[0] = pair[1] = zeros();
    for (int i = 0; i < dim; i++) {
        Floats a = load(columns + i * kSlots), b = load(columns + i * kSlots + 16);
        keep(a, b);
        for (int j = 0; j < kN; j++) {
            const Floats q = all(queries[j].q[i]);
            sums[j][0] = fused(q, a, sums[j][0]);
            sums[j][1] = fused(q, b, sums[j][1]);
        }
    }
    for (int j = 0; j < kN; j++) {
        store(weights + j * stride, multiply(sums[j][0], scale));
        store(weights + j * stride + 16, multiply(sums[j][1], scale));
    }
}

// Add the weighted values of `count` slots to what kN queries have so far.
template <int kN>
void mix(const Query* queries, const float* values, int count, int dim, const float* weights, size_t stride) {
    for (int i = 0; i < dim; i += 16 * kColumns) {
        const int width = dim - i < 16 * kColumns ? (dim - i) / 16 : kColumns;
        Floats sums[kN][kColumns];
        for (int j = 0; j < kN; j++) {
            for (int c = 0; c < kColumns; c++) {
                sums[j][c] = c < width ? load(queries[j].out + i + 16 * c) : zeros();
            }
        }
        if (width == kColumns) {
            for (int s = 0; s < count; s++) {
                const float* v = values + (size_t)s * dim + i;
                Floats v0 = load(v), v1 = load(v + 16), v2 = zeros(), v3 = zeros();
                keep(v0, v1);
                if (kColumns == 4) {
                    v2 = load(v + 32);
                    v3 = load(v + 48);
                    keep(v2, v3);
                }
                for (int j = 0; j < kN; j++) {
                    const Floats weight = all(weights[j * stride + s]);
                    sums[j][0] = fused(weight, v0, sums[j][0]);
                    sums[j][1] = fused(weight, v1, sums[j][1]);
                    if (kColumns == 4) {
                        sums[j][kColumns - 2] = fused(weight, v2, sums[j][kColumns - 2]);
                        sums[j][kColumns - 1] = fused(weight, v3, sums[j][kColumns - 1]);
                    }
                }
            }
        } else {
            for (int s = 0; s < count; s++) {
                const float* v = values + (size_t)s * dim + i;
                for (int j = 0; j < kN; j++) {
                    const Floats weight = all(weights[j * stride + s]);
                    for (int c = 0; c < width; c++) sums[j][c] = fused(weight, load(v + 16 * c), sums[j][c]);
                }
            }
        }
        for (int j = 0; j < kN; j++) {
            for (int c = 0; c < width; c++) store(queries[j].out + i + 16 * c, sums[j][c]);
        }
    }
}

// Scores to weights, those of slots that the query does not see to 0; `w` begins at slot `first`.
void soften(const Query& query, float* w, int first, int slots, float softcap) {
    const int begin = query.first - first, end = query.last + 1 - first, whole = (end + 15) / 16 * 16;
    const Floats never = all(-INFINITY);
    for (int s = 0; s < begin; s++) w[s] = -INFINITY;
    for (int s = end; s < whole; s++) w[s] = -INFINITY;
    if (softcap > 0) {
        for (int s = begin; s < end; s++) w[s] = softcap * std::tanh(w[s] / softcap);
    }
    Floats most = never;
    for (int s = 0; s < whole; s += 16) most = greater(most, load(w + s));
    const Floats largest = all(greatest_of(most));
    Floats sum = zeros();
    for (int s = 0; s < whole; s += 16) {
        const Floats value = load(w + s);
        const Floats e = where_not(value, never, exponential(subtract(value, largest)));
        sum = add(sum, e);
        store(w + s, e);
    }
    const Floats inverse = all(1.0f / sum_of(sum));
    for (int s = 0; s < whole; s += 16) store(w + s, multiply(load(w + s), inverse));
    for (int s = whole; s < slots; s += 16) store(w + s, zeros());
}

// Call `f(first, how many)` for queries in groups of kQueries, and for what is left; how many is known when compiling.
template <typename F>
void in_groups(int n, F f) {
    int j = 0;
    for (; j + kQueries <= n; j += kQueries) f(j, std::integral_constant<int, kQueries>());
    if (n - j == 3) f(j, std::integral_constant<int, 3>());
    if (n - j == 2) f(j, std::integral_constant<int, 2>());
    if (n - j == 1) f(j, std::integral_constant<int, 1>());
}

// Texts whose queries are computed together: tokens in a row of one text, or one token of each of several texts that
// begin alike.
struct Texts {
    const Slots* keys;
    const Slots* values;
    int count;
    int queries;  // of each
    int shared;   // slots from the first on that lie in the same place for all
};

// Call `f(text, first query, queries)` once where a block of slots is the same for all texts, else for each.
template <typename F>
void for_texts(const Texts& texts, int end, F f) {
    if (texts.count == 1 || end <= texts.shared) return f(0, 0, texts.count * texts.queries);
    for (int i = 0; i < texts.count; i++) f(i, i * texts.queries, texts.queries);
}

// Attention of queries over one head of keys. `weights` holds `stride` floats for each query, `block` kSlots * dim.
void attend(const Query* queries, const Texts& texts, int dim, float scale, float softcap, float* weights, size_t stride,
            float* block) {
    const int n = texts.count * texts.queries;
    int first = queries[0].first, last = queries[0].last;
    for (int i = 1; i < n; i++) {
        first = queries[i].first < first ? queries[i].first : first;
        last = queries[i].last > last ? queries[i].last : last;
    }
    // From a multiple of a block on, whatever else is in the pass: so each sum has the same order always.
    first = first / kSlots * kSlots;
    const int slots = (last - first) / kSlots * kSlots + kSlots;
    const Floats scales = all(scale);
    for (int s = 0; s < slots; s += kSlots) {
        const int here = last + 1 - first - s < kSlots ? last + 1 - first - s : kSlots;
        for_texts(texts, first + s + here, [&](int text, int begin, int count) {
            transpose_keys(texts.keys[text], first + s, here, block, 0);
            transpose_keys(texts.keys[text], first + s + 16, here - 16, block, 16);
            in_groups(count, [&](int j, auto count_of) {
                score<decltype(count_of)::value>(queries + begin + j, block, dim, scales,
                                                 weights + (begin + j) * stride + s, stride);
            });
        });
    }
    for (int j = 0; j < n; j++) {
        soften(queries[j], weights + j * stride, first, slots, softcap);
        for (int i = 0; i < dim; i += 16) store(queries[j].out + i, zeros());
    }
    for (int s = 0; s < slots; s += kSlots) {
        const int here = last + 1 - first - s < kSlots ? last + 1 - first - s : kSlots;
        for_texts(texts, first + s + here, [&](int text, int begin, int count) {
            for (int slot = 0; slot < here; slot++) {
                const uint16_t* line = texts.values[text].at(first + s + slot);
                for (int i = 0; i < dim; i += 16) store(block + slot * dim + i, from_bf16(line + i));
            }
            in_groups(count, [&](int j, auto count_of) {
                mix<decltype(count_of)::value>(queries + begin + j, block, here, dim, weights + (begin + j) * stride + s,
                                               stride);
            });
        });
    }
}

// ---- Threads ----------------------------------------------------------------------------------------------------

// Spins for a moment, then lets others run: a barrier of OpenMP's would put threads to sleep that are needed in a
// microsecond.
class Barrier {
  public:
    // Say how many threads will wait, before any does.
    void meet(int threads) { threads_ = threads; }

    void wait() {
        if (threads_ == 1) return;
        const int turn = turn_.load(std::memory_order_relaxed);
        if (count_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
            count_.store(0, std::memory_order_relaxed);
            turn_.store(turn + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; turn_.load(std::memory_order_acquire) == turn; spins++) {
            if (spins < 2000) {
                _mm_pause();
            } else {
                std::this_thread::yield();
            }
        }
    }

  private:
    int threads_ = 1;
    alignas(64) std::atomic<int> count_{0};
    alignas(64) std::atomic<int> turn_{0};
};

// ---- A pass through the model -----------------------------------------------------------------------------------

// Queries of one row that share a loop over its keys.
constexpr int kTokensTogether = 16;

struct Scratch {
    uint8_t* at;

    template <typename T>
    T* take(size_t count) {
        T* here = (T*)at;
        at += padded(count * sizeof(T));
        return here;
    }
};

int widest_input(const ModelData& m) {
    const int attended = m.n_heads * m.head_dim;
    int widest = m.d_model > m.d_ff ? m.d_model : m.d_ff;
    return attended > widest ? attended : widest;
}

// Memory for activations; called with a null pointer to count the bytes.
struct Buffers {
    float *qkv, *attended, *hidden, *mixed, *norms, *weights, *blocks, *low;
    int8_t* levels;
    float *scales, *sums;
    int32_t *offsets, *rows, *positions;
    size_t norm_stride, weight_stride, block_stride, low_stride;
    size_t bytes;

    Buffers(const ModelData& m, int tokens, int threads, int longest, uint8_t* memory) {
        Scratch scratch{memory};
        const int widest = widest_input(m);
        const int dim = m.head_dim, together = kTokensTogether * (m.n_heads / m.n_kv_heads);
        // One token is quantized by each thread for itself.
        const size_t lines = tokens == 1 ? threads : tokens;
        norm_stride = padded(widest * sizeof(float)) / sizeof(float);
        weight_stride = padded((longest + 2 * kSlots) * sizeof(float)) / sizeof(float);
        block_stride = (size_t)kSlots * dim;
        qkv = scratch.take<float>((size_t)tokens * (m.n_heads + 2 * m.n_kv_heads) * dim);
        attended = scratch.take<float>((size_t)tokens * m.n_heads * dim);
        hidden = scratch.take<float>((size_t)tokens * m.d_ff);
        mixed = scratch.take<float>((size_t)tokens * m.d_model);
        norms = scratch.take<float>(norm_stride * threads);
        weights = scratch.take<float>(weight_stride * together * threads);
        blocks = scratch.take<float>(block_stride * threads);
        levels = scratch.take<int8_t>(lines * widest);
        scales = scratch.take<float>(lines * (widest / kGroup));
        sums = scratch.take<float>(lines * (widest / kGroup));
        offsets = scratch.take<int32_t>(lines * (widest / kGroup));
        low_stride = 0;
        for (int i = 0; i < m.n_layers; i++) {
            const LayerData& layer = m.layers[i];
            for (const Linear* linear : {&layer.qkv, &layer.o, &layer.up, &layer.down}) {
                const size_t width = low_width(*linear);
                low_stride = width > low_stride ? width : low_stride;
            }
        }
        low = scratch.take<float>(lines * low_stride);
        rows = scratch.take<int32_t>(tokens);
        positions = scratch.take<int32_t>(tokens);
        bytes = (size_t)(scratch.at - memory);
    }

    // `own`: the thread, where each has a copy of its own.
    Quantized quantized(int inputs, int tokens, size_t own) const {
        const size_t scale = own * (inputs / kGroup);
        return {levels + own * inputs, scales + scale, sums + scale, offsets + scale, inputs, tokens,
                low + own * low_stride};
    }
};

int longest_of(const Pass& p) {
    int longest = 0;
    for (int t = 0; t < p.n_tokens; t++) longest = p.positions[t] + 1 > longest ? p.positions[t] + 1 : longest;
    return longest;
}

void attend_all(const ModelData& m, const LayerData& layer, const Pass& p, const Buffers& b, int index, int thread,
                int threads) {
    const int dim = m.head_dim, group = m.n_heads / m.n_kv_heads;
    const int width = (m.n_heads + 2 * m.n_kv_heads) * dim;
    // Runs of tokens of one row share the reading of keys. With few tokens, each head is a task of its own.
    const bool few = p.n_tokens * m.n_kv_heads < 2 * threads;
    const int heads = few ? m.n_heads : m.n_kv_heads, per_task = few ? 1 : group;
    int task = 0;
    Query queries[kTokensTogether * 64];
    Slots keys[kTokensTogether], values[kTokensTogether];
    for (int start = 0, stop; start < p.n_tokens; start = stop) {
        stop = start + 1;
        int shared = p.positions[start] + 1;
        if (p.homes) {
            while (stop < p.n_tokens && stop - start < kTokensTogether && p.shared[stop] > 0 &&
                   p.positions[stop] == p.positions[start]) {
                shared = p.shared[stop] < shared ? p.shared[stop] : shared;
                stop++;
            }
        } else {
            while (stop < p.n_tokens && stop - start < kTokensTogether && p.rows[stop] == p.rows[start] &&
                   p.positions[stop] == p.positions[stop - 1] + 1) {
                stop++;
            }
        }
        const int texts = p.homes ? stop - start : 1;
        for (int head = 0; head < heads; head++) {
            if (task++ % threads != thread) continue;
            const int kv = few ? head / group : head;
            const size_t at = index * p.layer_stride + kv * p.head_stride;
            for (int i = 0; i < texts; i++) {
                const int32_t* homes = p.homes ? p.homes + (start + i) * p.home_stride : nullptr;
                const size_t row = p.homes ? 0 : p.rows[start] * p.row_stride;
                keys[i] = {p.keys + at + row, homes, p.row_stride, dim};
                values[i] = {p.values + at + row, homes, p.row_stride, dim};
            }
            for (int part = 0; part < per_task; part += 64) {
                const int parts = per_task - part < 64 ? per_task - part : 64;
                int n = 0;
                for (int t = start; t < stop; t++) {
                    const int last = p.positions[t];
                    const int first = layer.window && last + 1 > layer.window ? last + 1 - layer.window : 0;
                    for (int g = 0; g < parts; g++) {
                        const int h = head * per_task + part + g;
                        queries[n++] = {b.qkv + (size_t)t * width + h * dim,
                                        b.attended + ((size_t)t * m.n_heads + h) * dim, first, last};
                    }
                }
                attend(queries, {keys, values, texts, n / texts, shared}, dim, m.scale, m.softcap,
                       b.weights + b.weight_stride * kTokensTogether * group * thread, b.weight_stride,
                       b.blocks + b.block_stride * thread);
            }
        }
    }
}

// Keep what is left to do for the tokens whose states are wanted, from here on the only ones of the pass.
void leave_out(const ModelData& m, const Pass& p, const Buffers& b) {
    const size_t d = m.d_model, width = (m.n_heads + 2 * m.n_kv_heads) * m.head_dim;
    for (int i = 0; i < p.n_wanted; i++) {
        const int from = p.wanted[i];
        b.rows[i] = p.rows[from];
        b.positions[i] = p.positions[from];
        if (from == i) continue;
        std::memcpy(p.x + i * d, p.x + from * d, d * sizeof(float));
        std::memcpy(b.qkv + i * width, b.qkv + from * width, width * sizeof(float));
    }
}

void run(const ModelData& m, Pass p, const Buffers& b, Barrier& barrier, int thread, int threads) {
    const int d = m.d_model, dim = m.head_dim;
    const int width = (m.n_heads + 2 * m.n_kv_heads) * dim, attended_width = m.n_heads * dim;
    int tokens = p.n_tokens;
    float* norms = b.norms + b.norm_stride * thread;
    // A single token is normalised and quantized by every thread: cheaper than waiting for one that does it.
    const bool alone = tokens == 1;
    const size_t own = alone ? thread : 0;
    Range mine = alone ? Range{0, 1} : share(tokens, thread, threads);
    Range placed = share(tokens, thread, threads);
    for (int index = 0; index < m.n_layers; index++) {
        const LayerData& layer = m.layers[index];
        Quantized q = b.quantized(d, tokens, own);
        for (int t = mine.begin; t < mine.end; t++) {
            quantize_normalised(layer.attn_norm, p.x + (size_t)t * d, norms, q, t);
        }
        reduce(layer.qkv, q, mine);
        if (!alone) barrier.wait();
        product<false>(layer.qkv, q, b.qkv, width, thread, threads);
        barrier.wait();
        for (int t = placed.begin; t < placed.end; t++) place(m, layer, p, index, b.qkv + (size_t)t * width, t);
        barrier.wait();
        if (index == m.n_layers - 1 && p.n_wanted < tokens) {
            if (thread == 0) leave_out(m, p, b);
            tokens = p.n_tokens = p.n_wanted;
            p.rows = b.rows;
            p.positions = b.positions;
            mine = placed = share(tokens, thread, threads);
            barrier.wait();
        }
        attend_all(m, layer, p, b, index, thread, threads);
        barrier.wait();
        q = b.quantized(attended_width, tokens, own);
        for (int t = mine.begin; t < mine.end; t++) quantize_row(b.attended + (size_t)t * attended_width, q, t);
        reduce(layer.o, q, mine);
        if (!alone) barrier.wait();
        if (m.post || m.parallel) {
            product<false>(layer.o, q, b.mixed, d, thread, threads);
        } else {
            product<true>(layer.o, q, p.x, d, thread, threads);
        }
        barrier.wait();
        if (m.post) {
            for (int t = placed.begin; t < placed.end; t++) {
                float *x = p.x + (size_t)t * d, *y = b.mixed + (size_t)t * d;
                normalise(layer.attn_post_norm, y, y, d);
                if (m.parallel) continue;
                for (int i = 0; i < d; i++) x[i] += y[i];
            }
            barrier.wait();
        }
        q = b.quantized(d, tokens, own);
        for (int t = mine.begin; t < mine.end; t++) {
            quantize_normalised(layer.mlp_norm, p.x + (size_t)t * d, norms, q, t);
        }
        reduce(layer.up, q, mine);
        // Alone, the other thread may still be reading x: it is written again only after the next barrier.
        if (!alone) barrier.wait();
        hidden_layer(m, layer.up, q, b.hidden, thread, threads);
        barrier.wait();
        if (m.parallel) {
            for (int t = placed.begin; t < placed.end; t++) {
                for (int i = 0; i < d; i++) p.x[(size_t)t * d + i] += b.mixed[(size_t)t * d + i];
            }
        }
        q = b.quantized(m.d_ff, tokens, own);
        for (int t = mine.begin; t < mine.end; t++) quantize_row(b.hidden + (size_t)t * m.d_ff, q, t);
        reduce(layer.down, q, mine);
        if (!alone || m.parallel) barrier.wait();
        if (m.post && !m.parallel) {
            product<false>(layer.down, q, b.mixed, d, thread, threads);
            barrier.wait();
            for (int t = placed.begin; t < placed.end; t++) {
                float *x = p.x + (size_t)t * d, *y = b.mixed + (size_t)t * d;
                normalise(layer.mlp_post_norm, y, y, d);
                for (int i = 0; i < d; i++) x[i] += y[i];
            }
        } else {
            product<true>(layer.down, q, p.x, d, thread, threads);
        }
        barrier.wait();
    }
    for (int t = placed.begin; t < placed.end; t++) {
        normalise(m.final_norm, p.x + (size_t)t * d, p.x + (size_t)t * d, d);
    }
}

float half_rounded(float value, uint16_t& bits) {
    // Beyond fp16's range only for weights that no model has.
    value = value > 65504.0f ? 65504.0f : value < -65504.0f ? -65504.0f : value;
    bits = (uint16_t)_mm_extract_epi16(_mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT), 0);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

void pack_group(const float* w, size_t stride, int outputs, int bits, uint8_t* out) {
    std::memset(out, 0, bytes_per_block(bits));
    const int scales_at = bits == 4 ? 256 : 512;
    for (int o = 0; o < outputs; o++, w += stride) {
        const Floats a = load(w), b = load(w + 16);
        uint16_t half = 0;
        float scale, least = 0;
        if (bits == 4) {
            const float low = least_of(lesser(a, b)), high = greatest_of(greater(a, b));
            least = half_rounded(low, half);
            std::memcpy(out + scales_at + 32 + 2 * o, &half, 2);
            scale = half_rounded((high - low) / 15.0f, half);
        } else {
            scale = half_rounded(greatest_of(greater(magnitude(a), magnitude(b))) / 127.0f, half);
        }
        std::memcpy(out + scales_at + 2 * o, &half, 2);
        const Floats inverse = all(scale > 0 ? 1.0f / scale : 0.0f), base = all(least);
        const Ints most = all_ints(bits == 4 ? 15 : 255), none = zero_ints();
        const Ints zero = all_ints(bits == 4 ? 0 : 128);
        uint32_t levels[8];
        for (int h = 0; h < 2; h++) {
            const Floats steps = multiply(subtract(h ? b : a, base), inverse);
            Ints level = add(to_ints(steps), zero);
            level = lesser(greater(level, none), most);
            store_bytes(levels + 4 * h, level);
        }
        for (int four = 0; four < 8; four++) {
            uint8_t* at = out + 64 * (bits == 4 ? four / 2 : four) + 4 * o;
            uint32_t there = 0;
            if (bits == 4 && four % 2) {
                std::memcpy(&there, at, 4);
                levels[four] <<= 4;
            }
            there |= levels[four];
            std::memcpy(at, &there, 4);
        }
    }
}

}  // namespace

extern "C" {

int nlpkit_version() { return 4; }

// Bytes of the packed form of a matrix.
int64_t nlpkit_packed_bytes(int32_t outputs, int32_t inputs, int32_t bits) {
    return (int64_t)n_blocks(outputs) * (inputs / kGroup) * (int64_t)bytes_per_block(bits);
}

// Quantize and pack whole blocks of 16 rows of a matrix of floats; the last may be short.
void nlpkit_pack(const float* w, int32_t outputs, int32_t inputs, int32_t bits, uint8_t* out, int32_t threads) {
    const int groups = inputs / kGroup;
#pragma omp parallel for num_threads(threads)
    for (int block = 0; block < n_blocks(outputs); block++) {
        const int rest = outputs - block * kBlock, count = rest < kBlock ? rest : kBlock;
        for (int g = 0; g < groups; g++) {
            pack_group(w + (size_t)block * kBlock * inputs + g * kGroup, inputs, count, bits,
                       out + ((size_t)block * groups + g) * bytes_per_block(bits));
        }
    }
}

int64_t nlpkit_linear_scratch(const Linear* linear, int32_t tokens) {
    const size_t scales = padded((size_t)tokens * (linear->inputs / kGroup) * sizeof(float));
    return (int64_t)(padded((size_t)tokens * linear->inputs) + 3 * scales +
                     padded((size_t)tokens * low_width(*linear) * sizeof(float)));
}

// Rows of floats times a matrix.
void nlpkit_linear(const Linear* linear, const float* x, int32_t tokens, float* out, uint8_t* memory, int32_t threads) {
    Scratch scratch{memory};
    const int groups = linear->inputs / kGroup;
    Quantized q{scratch.take<int8_t>((size_t)tokens * linear->inputs), nullptr, nullptr, nullptr, linear->inputs, tokens,
                nullptr};
    q.scales = scratch.take<float>((size_t)tokens * groups);
    q.sums = scratch.take<float>((size_t)tokens * groups);
    q.offsets = scratch.take<int32_t>((size_t)tokens * groups);
    q.low = scratch.take<float>((size_t)tokens * low_width(*linear));
    if (tokens < 8) {
        for (int t = 0; t < tokens; t++) quantize_row(x + (size_t)t * linear->inputs, q, t);
        reduce(*linear, q, {0, tokens});
    }
#pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num(), team = omp_get_num_threads();
        if (tokens >= 8) {
            const Range mine = share(tokens, thread, team);
            for (int t = mine.begin; t < mine.end; t++) quantize_row(x + (size_t)t * linear->inputs, q, t);
            reduce(*linear, q, mine);
#pragma omp barrier
        }
        product<false>(*linear, q, out, linear->outputs, thread, team);
    }
}

int64_t nlpkit_scratch(const ModelData* model, const Pass* pass) {
    const Buffers counted(*model, pass->n_tokens, pass->n_threads, longest_of(*pass), nullptr);
    return (int64_t)counted.bytes;
}

// All blocks and the final norm.
void nlpkit_run(const ModelData* model, const Pass* pass) {
    const Buffers buffers(*model, pass->n_tokens, pass->n_threads, longest_of(*pass), pass->scratch);
    Barrier barrier;
#pragma omp parallel num_threads(pass->n_threads)
    {
        // The team may be smaller than what was asked for; `single` ends with a barrier of its own.
#pragma omp single
        barrier.meet(omp_get_num_threads());
        run(*model, *pass, buffers, barrier, omp_get_thread_num(), omp_get_num_threads());
    }
}
}

