// Vectors of 16 numbers of 32 bits: a register with AVX-512 and VNNI, two with AVX2.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512VNNI__)
#define NLPKIT_WIDE 1
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define NLPKIT_WIDE 0
#else
#error "these kernels need a processor with AVX2, FMA and F16C"
#endif

namespace {

constexpr bool kWide = NLPKIT_WIDE;
// Whether products of bytes are of levels with 128 added: else they are of the signed levels themselves.
#if NLPKIT_WIDE || defined(__AVXVNNI__)
constexpr bool kUnsigned = true;
#else
constexpr bool kUnsigned = false;
#endif

#if NLPKIT_WIDE

typedef __m512 Floats;
typedef __m512i Ints;

inline Floats zeros() { return _mm512_setzero_ps(); }
inline Floats all(float x) { return _mm512_set1_ps(x); }
inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
inline __mmask16 first(int count) { return count >= 16 ? 0xffff : (__mmask16)((1u << count) - 1); }
// The first `count` numbers; the others are 0.
inline Floats load(const float* p, int count) { return _mm512_maskz_loadu_ps(first(count), p); }
inline void store(float* p, Floats x, int count) { _mm512_mask_storeu_ps(p, first(count), x); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
// a * b + c, and c - a * b
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats fused_minus(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
inline Floats lesser(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats greater(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats magnitude(Floats a) { return _mm512_abs_ps(a); }
inline Floats nearest(Floats a) { return _mm512_roundscale_ps(a, 0x08); }
// x * 2^n for whole n from -126 to 127
inline Floats times_power(Floats x, Floats n) { return _mm512_scalef_ps(x, n); }
inline float sum_of(Floats a) { return _mm512_reduce_add_ps(a); }
inline float greatest_of(Floats a) { return _mm512_reduce_max_ps(a); }
inline float least_of(Floats a) { return _mm512_reduce_min_ps(a); }
// `then` where `value` is not `never`, else 0.
inline Floats where_not(Floats value, Floats never, Floats then) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(value, never, _CMP_NEQ_OQ), then);
}
inline Floats from_half(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline Floats from_bf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}

inline Ints zero_ints() { return _mm512_setzero_si512(); }
inline Ints all_ints(int32_t x) { return _mm512_set1_epi32(x); }
inline Ints load_ints(const void* p) { return _mm512_loadu_si512(p); }
inline void store_ints(void* p, Ints x) { _mm512_storeu_si512(p, x); }
inline Ints load_first_ints(const void* p, int count) { return _mm512_maskz_loadu_epi32(first(count), p); }
inline Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints lesser(Ints a, Ints b) { return _mm512_min_epi32(a, b); }
inline Ints greater(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
inline Ints both(Ints a, Ints b) { return _mm512_and_si512(a, b); }
template <int kBits>
inline Ints shift_left(Ints a) { return _mm512_slli_epi32(a, kBits); }
template <int kBits>
inline Ints shift_right(Ints a) { return _mm512_srli_epi32(a, kBits); }
inline Ints to_ints(Floats a) { return _mm512_cvtps_epi32(a); }
inline Floats to_floats(Ints a) { return _mm512_cvtepi32_ps(a); }
inline Ints bits_of(Floats a) { return _mm512_castps_si512(a); }
inline int sum_of(Ints a) { return _mm512_reduce_add_epi32(a); }
// As bytes: cut to -128 to 127, or their lowest eight bits.
inline void store_signed(int8_t* p, Ints a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8(a)); }
inline void store_bytes(void* p, Ints a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a)); }
inline void store_halves(uint16_t* p, Ints a) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(a)); }

// Add products of 4 bytes of levels and 4 of activations to each sum.
template <int kBits>
inline Ints dot4(Ints sums, Ints levels, Ints fours) { return _mm512_dpbusd_epi32(sums, levels, fours); }

// Hold vectors in registers: compilers read them again from memory for each use, which is what takes the time then.
inline void keep(Floats& a, Floats& b) { asm("" : "+v"(a), "+v"(b)); }

// Rows of 16 numbers become columns.
inline void transpose16(Ints* v) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // v[4 * r + c]: columns c, 4 + c, 8 + c, 12 + c of rows 4 * r to 4 * r + 3.
    for (int c = 0; c < 4; c++) {
        t[c] = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88);
        t[4 + c] = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xdd);
        t[8 + c] = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xdd);
    }
    for (int c = 0; c < 4; c++) {
        v[c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0x88);
        v[8 + c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0xdd);
        v[4 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0x88);
        v[12 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0xdd);
    }
}

#else

struct Floats {
    __m256 a, b;
};
struct Ints {
    __m256i a, b;
};

inline Floats zeros() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Floats x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
inline __m256i first(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Floats load(const float* p, int count) {
    return {_mm256_maskload_ps(p, first(count)), _mm256_maskload_ps(p + 8, first(count - 8))};
}
inline void store(float* p, Floats x, int count) {
    _mm256_maskstore_ps(p, first(count), x.a);
    _mm256_maskstore_ps(p + 8, first(count - 8), x.b);
}
inline Floats add(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Floats subtract(Floats x, Floats y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline Floats multiply(Floats x, Floats y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Floats divide(Floats x, Floats y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline Floats fused(Floats x, Floats y, Floats z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline Floats fused_minus(Floats x, Floats y, Floats z) {
    return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
inline Floats lesser(Floats x, Floats y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline Floats greater(Floats x, Floats y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline Floats magnitude(Floats x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline Floats nearest(Floats x) {
    constexpr int how = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, how), _mm256_round_ps(x.b, how)};
}
inline __m256 power(__m256 n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
inline Floats times_power(Floats x, Floats n) {
    return {_mm256_mul_ps(x.a, power(n.a)), _mm256_mul_ps(x.b, power(n.b))};
}
inline __m128 quarters(__m256 x, __m128 (*join)(__m128, __m128)) {
    __m128 four = join(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    four = join(four, _mm_movehl_ps(four, four));
    return join(four, _mm_shuffle_ps(four, four, 1));
}
inline float sum_of(Floats x) {
    return _mm_cvtss_f32(quarters(_mm256_add_ps(x.a, x.b), [](__m128 p, __m128 q) { return _mm_add_ps(p, q); }));
}
inline float greatest_of(Floats x) {
    return _mm_cvtss_f32(quarters(_mm256_max_ps(x.a, x.b), [](__m128 p, __m128 q) { return _mm_max_ps(p, q); }));
}
inline float least_of(Floats x) {
    return _mm_cvtss_f32(quarters(_mm256_min_ps(x.a, x.b), [](__m128 p, __m128 q) { return _mm_min_ps(p, q); }));
}
inline Floats where_not(Floats value, Floats never, Floats then) {
    return {_mm256_and_ps(_mm256_cmp_ps(value.a, never.a, _CMP_NEQ_OQ), then.a),
            _mm256_and_ps(_mm256_cmp_ps(value.b, never.b, _CMP_NEQ_OQ), then.b)};
}
inline Floats from_half(const void* p) {
    const __m128i* at = (const __m128i*)p;
    return {_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
}
inline __m256 widened(const uint16_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline Floats from_bf16(const uint16_t* p) { return {widened(p), widened(p + 8)}; }

inline Ints zero_ints() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Ints all_ints(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline Ints load_ints(const void* p) {
    const __m256i* at = (const __m256i*)p;
    return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
inline void store_ints(void* p, Ints x) {
    _mm256_storeu_si256((__m256i*)p, x.a);
    _mm256_storeu_si256((__m256i*)p + 1, x.b);
}
inline Ints load_first_ints(const void* p, int count) {
    const int* at = (const int*)p;
    return {_mm256_maskload_epi32(at, first(count)), _mm256_maskload_epi32(at + 8, first(count - 8))};
}
inline Ints add(Ints x, Ints y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline Ints lesser(Ints x, Ints y) { return {_mm256_min_epi32(x.a, y.a), _mm256_min_epi32(x.b, y.b)}; }
inline Ints greater(Ints x, Ints y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
inline Ints both(Ints x, Ints y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
template <int kBits>
inline Ints shift_left(Ints x) { return {_mm256_slli_epi32(x.a, kBits), _mm256_slli_epi32(x.b, kBits)}; }
template <int kBits>
inline Ints shift_right(Ints x) { return {_mm256_srli_epi32(x.a, kBits), _mm256_srli_epi32(x.b, kBits)}; }
inline Ints to_ints(Floats x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline Floats to_floats(Ints x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline Ints bits_of(Floats x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
inline int sum_of(Ints x) {
    const __m256i eight = _mm256_add_epi32(x.a, x.b);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
// Eight numbers of 32 bits as numbers of 16 bits, cut to what fits.
inline __m128i signed_halves(__m256i x) {
    return _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}
inline void store_signed(int8_t* p, Ints x) {
    _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(signed_halves(x.a), signed_halves(x.b)));
}
inline void store_bytes(void* p, Ints x) {
    const Ints low = both(x, all_ints(0xff));
    _mm_storeu_si128((__m128i*)p, _mm_packus_epi16(signed_halves(low.a), signed_halves(low.b)));
}
inline void store_halves(uint16_t* p, Ints x) {
    const Ints low = both(x, all_ints(0xffff));
    const __m128i a = _mm_packus_epi32(_mm256_castsi256_si128(low.a), _mm256_extracti128_si256(low.a, 1));
    const __m128i b = _mm_packus_epi32(_mm256_castsi256_si128(low.b), _mm256_extracti128_si256(low.b, 1));
    _mm_storeu_si128((__m128i*)p, a);
    _mm_storeu_si128((__m128i*)p + 1, b);
}

// Levels of 8 bits as products of bytes take them.
inline __m256i ready(__m256i levels) {
    // Signed levels, from -127 to 127, so that no sum of two products is cut off.
    return kUnsigned ? levels : _mm256_xor_si256(levels, _mm256_set1_epi8((char)0x80));
}
template <int kBits>
inline __m256i dot4_ready(__m256i sums, __m256i levels, __m256i fours) {
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sums, levels, fours);
#else
    __m256i pairs;
    if (kBits == 4) {
        pairs = _mm256_maddubs_epi16(levels, fours);
    } else {
        pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(fours), _mm256_sign_epi8(levels, fours));
    }
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
template <int kBits>
inline __m256i dot4(__m256i sums, __m256i levels, __m256i fours) {
    return dot4_ready<kBits>(sums, kBits == 8 ? ready(levels) : levels, fours);
}
template <int kBits>
inline Ints dot4(Ints sums, Ints levels, Ints fours) {
    return {dot4<kBits>(sums.a, levels.a, fours.a), dot4<kBits>(sums.b, levels.b, fours.b)};
}

// There are too few registers to hold anything on purpose.
inline void keep(Floats&, Floats&) {}

inline void transpose8(const __m256i* in, __m256i* out) {
    __m256i t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(in[i], in[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(in[i], in[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        out[i] = _mm256_permute2x128_si256(u[i], u[4 + i], 0x20);
        out[4 + i] = _mm256_permute2x128_si256(u[i], u[4 + i], 0x31);
    }
}
inline void transpose16(Ints* v) {
    __m256i rows[4][8], columns[4][8];
    for (int i = 0; i < 8; i++) {
        rows[0][i] = v[i].a;
        rows[1][i] = v[i].b;
        rows[2][i] = v[8 + i].a;
        rows[3][i] = v[8 + i].b;
    }
    for (int part = 0; part < 4; part++) transpose8(rows[part], columns[part]);
    for (int i = 0; i < 8; i++) {
        v[i] = {columns[0][i], columns[2][i]};
        v[8 + i] = {columns[1][i], columns[3][i]};
    }
}

#endif

// To the nearest, ties to even.
inline void to_bf16(uint16_t* p, Floats x) {
    Ints bits = bits_of(x);
    const Ints odd = both(shift_right<16>(bits), all_ints(1));
    bits = add(bits, add(odd, all_ints(0x7fff)));
    store_halves(p, shift_right<16>(bits));
}

inline Floats exponential(Floats x) {
    // 2^n * e^r with |r| <= ln(2) / 2, and a polynomial of e^r (Cephes' expf).
    x = lesser(greater(x, all(-87.3f)), all(88.0f));
    const Floats n = nearest(multiply(x, all(1.44269504088896341f)));
    Floats r = fused_minus(n, all(0.693359375f), x);
    r = fused_minus(n, all(-2.12194440e-4f), r);
    Floats p = all(1.9875691500e-4f);
    p = fused(p, r, all(1.3981999507e-3f));
    p = fused(p, r, all(8.3334519073e-3f));
    p = fused(p, r, all(4.1665795894e-2f));
    p = fused(p, r, all(1.6666665459e-1f));
    p = fused(p, r, all(5.0000001201e-1f));
    p = fused(p, multiply(r, r), add(r, all(1.0f)));
    return times_power(p, n);
}

}  // namespace
