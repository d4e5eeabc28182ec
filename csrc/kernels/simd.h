// Vectors of floats as wide as the level has them, and the element types of buffers.
#pragma once

#include <cstdint>
#include <cstring>

#include "../level.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define NOVACRON_STRING_(text) #text
#define NOVACRON_STRING(text) NOVACRON_STRING_(text)
#define NOVACRON_INLINE inline __attribute__((always_inline))
// Before each loop over an array of vectors, so that the array can live in registers.
#define NOVACRON_UNROLL _Pragma("GCC unroll 16")
#define NOVACRON_ROLL _Pragma("GCC unroll 1")

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));
typedef int8_t Bytes __attribute__((vector_size(kLanes)));

struct BFloat16 {
  uint16_t bits;
};

NOVACRON_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
NOVACRON_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

NOVACRON_INLINE Floats broadcast(float x) {
#if defined(__AVX512F__)
  return (Floats)_mm512_set1_ps(x);
#elif defined(__AVX2__)
  return (Floats)_mm256_set1_ps(x);
#elif defined(__ARM_NEON)
  return (Floats)vdupq_n_f32(x);
#else
  return Floats{x, x, x, x};
#endif
}

NOVACRON_INLINE Words broadcast_word(uint32_t x) { return Words{} + x; }

// a * b + c, rounded once where the level can.
NOVACRON_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON)
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

NOVACRON_INLINE Floats load(const float* from) {
  Floats x;
  memcpy(&x, from, sizeof x);
  return x;
}
NOVACRON_INLINE Words load_words(const void* from) {
  Words x;
  memcpy(&x, from, sizeof x);
  return x;
}
NOVACRON_INLINE Floats load(const BFloat16* from) {
  Halves x;
  memcpy(&x, from, sizeof x);
#if defined(__AVX512F__)
  const Words wide = (Words)_mm512_cvtepu16_epi32((__m256i)x);
#else
  const Words wide = __builtin_convertvector(x, Words);
#endif
  return (Floats)(wide << 16);
}

NOVACRON_INLINE void store_words(void* to, Words x) { memcpy(to, &x, sizeof x); }
NOVACRON_INLINE void store(float* to, Floats x) { memcpy(to, &x, sizeof x); }
// Rounds to nearest, ties to even; NaN stays NaN.
NOVACRON_INLINE void store(BFloat16* to, Floats x) {
  const Words bits = (Words)x;
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Words is_nan = (Words)(x != x);
  const Halves halves =
      __builtin_convertvector((is_nan & 0x7fc0u) | (~is_nan & rounded), Halves);
  memcpy(to, &halves, sizeof halves);
}

// The first `count` lanes; the others are zero.
template <class T>
NOVACRON_INLINE Floats load_some(const T* from, int64_t count) {
  T lanes[kLanes] = {};
  for (int64_t lane = 0; lane < count; ++lane) lanes[lane] = from[lane];
  return load(lanes);
}
template <class T>
NOVACRON_INLINE void store_some(T* to, Floats x, int64_t count) {
  T lanes[kLanes];
  store(lanes, x);
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = lanes[lane];
}

// Calls body(index, count) for kLanes elements at a time; count < kLanes only in the last call.
template <class Body>
NOVACRON_INLINE void for_vectors(int64_t size, Body body) {
  int64_t index = 0;
  for (; index + kLanes <= size; index += kLanes) body(index, int64_t{kLanes});
  if (index < size) body(index, size - index);
}
template <class T>
NOVACRON_INLINE Floats load_up_to(const T* from, int64_t count) {
  return count == kLanes ? load(from) : load_some(from, count);
}
template <class T>
NOVACRON_INLINE void store_up_to(T* to, Floats x, int64_t count) {
  if (count == kLanes) {
    store(to, x);
  } else {
    store_some(to, x, count);
  }
}

// The lowest bytes of the first `count` lanes.
NOVACRON_INLINE void store_bytes(int8_t* to, Ints x, int64_t count) {
  const Bytes bytes = __builtin_convertvector(x, Bytes);
  memcpy(to, &bytes, count);
}

// The nearest whole numbers, ties to even, of what is smaller than 2^22.
NOVACRON_INLINE Ints nearest(Floats x) {
#if defined(__AVX512F__)
  return (Ints)_mm512_cvtps_epi32((__m512)x);
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtps_epi32((__m256)x);
#else
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  return (Ints)(x + kShift) - (Ints)broadcast(kShift);
#endif
}

NOVACRON_INLINE Floats choose(Ints condition, Floats yes, Floats no) {
  return (Floats)(((Ints)yes & condition) | ((Ints)no & ~condition));
}

// The second where neither is larger, or one is not a number.
NOVACRON_INLINE Floats larger_of(Floats a, Floats b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return choose(a > b, a, b);
#endif
}
NOVACRON_INLINE Floats smaller_of(Floats a, Floats b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Floats)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return choose(a < b, a, b);
#endif
}

// Lane i is lane i ^ width of x. Written out, because compilers make one instruction of this only.
template <int kWidth>
NOVACRON_INLINE Floats exchange(Floats x) {
  constexpr int w = kWidth % kLanes;
#if defined(__AVX512F__)
  return Floats{x[0 ^ w], x[1 ^ w], x[2 ^ w],  x[3 ^ w],  x[4 ^ w],  x[5 ^ w],  x[6 ^ w],  x[7 ^ w],
                x[8 ^ w], x[9 ^ w], x[10 ^ w], x[11 ^ w], x[12 ^ w], x[13 ^ w], x[14 ^ w], x[15 ^ w]};
#elif defined(__AVX2__)
  return Floats{x[0 ^ w], x[1 ^ w], x[2 ^ w], x[3 ^ w], x[4 ^ w], x[5 ^ w], x[6 ^ w], x[7 ^ w]};
#else
  return Floats{x[0 ^ w], x[1 ^ w], x[2 ^ w], x[3 ^ w]};
#endif
}
// Halves are added to halves: the same tree at every call.
NOVACRON_INLINE float sum_of_lanes(Floats x) {
  if constexpr (kLanes == 16) x += exchange<8>(x);
  if constexpr (kLanes >= 8) x += exchange<4>(x);
  x += exchange<2>(x);
  return x[0] + x[1];
}
NOVACRON_INLINE float max_of_lanes(Floats x) {
  if constexpr (kLanes == 16) x = larger_of(x, exchange<8>(x));
  if constexpr (kLanes >= 8) x = larger_of(x, exchange<4>(x));
  x = larger_of(x, exchange<2>(x));
  return x[0] > x[1] ? x[0] : x[1];
}

NOVACRON_INLINE int32_t sum_of_lanes(Ints x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)x);
#else
  int32_t total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += x[lane];
  return total;
#endif
}
NOVACRON_INLINE int32_t max_of_lanes(Ints x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_epi32((__m512i)x);
#else
  int32_t most = x[0];
  for (int lane = 1; lane < kLanes; ++lane) most = most < x[lane] ? x[lane] : most;
  return most;
#endif
}

// e^x within about 1e-7 relative; below -87 as at -87. The polynomial is that of Cephes' expf.
NOVACRON_INLINE Floats exponential(Floats x) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  x = smaller_of(broadcast(88.0f), larger_of(broadcast(-87.0f), x));
  const Floats shifted = multiply_add(x, broadcast(1.44269504f), broadcast(kShift));
  const Floats n = shifted - kShift;
  Floats r = multiply_add(n, broadcast(-0.693359375f), x);
  r = multiply_add(n, broadcast(2.12194440e-4f), r);
  Floats p = broadcast(1.9875691500e-4f);
  p = multiply_add(p, r, broadcast(1.3981999507e-3f));
  p = multiply_add(p, r, broadcast(8.3334519073e-3f));
  p = multiply_add(p, r, broadcast(4.1665795894e-2f));
  p = multiply_add(p, r, broadcast(1.6666665459e-1f));
  p = multiply_add(p, r, broadcast(5.0000001201e-1f));
  const Floats y = multiply_add(p, r * r, r) + 1.0f;
  const Ints exponent = ((Ints)shifted - (Ints)broadcast(kShift)) + 127;
  return y * (Floats)(exponent << 23);
}

NOVACRON_INLINE Floats hyperbolic_tangent(Floats x) {
  return 1.0f - 2.0f / (1.0f + exponential(x * 2.0f));
}

// A cell is 4 bytes of weights or keys: one float, or two neighbours in bfloat16. `add_product`
// adds to each lane the product of its cell and one cell of the other operand, which `Other` holds
// in the form that the level multiplies best.
struct FloatCells {
  using Element = float;
  static constexpr int64_t kElements = 1;
  struct __attribute__((may_alias)) Other {
    float value;
  };
  static bool can_read_in_place(const void*, int64_t, int64_t) { return true; }
  static NOVACRON_INLINE Floats add_product(Floats sum, Other other, Words cells) {
    return multiply_add(broadcast(other.value), (Floats)cells, sum);
  }
  static NOVACRON_INLINE void prepare(const float* from, int64_t size, Other* to) {
    memcpy(to, from, size * sizeof(float));
  }
};

struct BFloat16Cells {
  using Element = BFloat16;
  static constexpr int64_t kElements = 2;
#if defined(__AVX512BF16__)
  struct __attribute__((may_alias)) Other {
    uint32_t pair;
  };
  static bool can_read_in_place(const void* from, int64_t size, int64_t stride) {
    return size % 2 == 0 && stride % 2 == 0 && reinterpret_cast<uintptr_t>(from) % 4 == 0;
  }
  static NOVACRON_INLINE Floats add_product(Floats sum, Other other, Words cells) {
    const __m512i pair = _mm512_set1_epi32(static_cast<int>(other.pair));
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)pair, (__m512bh)cells);
  }
  static NOVACRON_INLINE void prepare(const BFloat16* from, int64_t size, Other* to) {
    if (size % 2 != 0) to[size / 2].pair = 0;
    memcpy(to, from, size * sizeof(BFloat16));
  }
#else
  struct __attribute__((may_alias)) Other {
    float even, odd;
  };
  static bool can_read_in_place(const void*, int64_t, int64_t) { return false; }
  static NOVACRON_INLINE Floats add_product(Floats sum, Other other, Words cells) {
    sum = multiply_add(broadcast(other.even), (Floats)(cells << 16), sum);
    return multiply_add(broadcast(other.odd), (Floats)(cells & 0xffff0000u), sum);
  }
  static NOVACRON_INLINE float widen(BFloat16 x) {
    const uint32_t bits = uint32_t{x.bits} << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
  }
  static NOVACRON_INLINE void prepare(const BFloat16* from, int64_t size, Other* to) {
    for (int64_t i = 0; i + 1 < size; i += 2) to[i / 2] = {widen(from[i]), widen(from[i + 1])};
    if (size % 2 != 0) to[size / 2] = {widen(from[size - 1]), 0.0f};
  }
#endif
};

// sum + a[0] * b[0] + a[1] * b[1] in each lane, of the two signed halves of its words.
NOVACRON_INLINE Ints add_products_of_pairs(Ints sum, Words a, Words b) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVXVNNI__)
  return (Ints)_mm256_dpwssd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)b);
#elif defined(__AVX512BW__)
  return sum + (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return sum + (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return sum + (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  const Ints low = ((Ints)(a << 16) >> 16) * ((Ints)(b << 16) >> 16);
  return sum + low + ((Ints)a >> 16) * ((Ints)b >> 16);
#endif
}

// Four neighbouring whole numbers from -128 to 127, in the form that the level multiplies best with
// the four unsigned bytes of each lane. `add_byte_products` adds all four products to the lane;
// `make_byte_cells` makes cells of bytes that were written to where `bytes_before` says: to the
// cells themselves if they are nothing else, or to `room`.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
struct __attribute__((may_alias)) ByteCell {
  uint32_t bytes;
};
NOVACRON_INLINE Ints add_byte_products(Ints sum, ByteCell other, Words bytes) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)bytes,
                                   _mm512_set1_epi32(static_cast<int>(other.bytes)));
#else
  return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)bytes,
                                       _mm256_set1_epi32(static_cast<int>(other.bytes)));
#endif
}
NOVACRON_INLINE int8_t* bytes_before(ByteCell* to, int8_t*) { return reinterpret_cast<int8_t*>(to); }
NOVACRON_INLINE void make_byte_cells(const int8_t*, int64_t, ByteCell*) {}
#else
struct __attribute__((may_alias)) ByteCell {
  uint32_t even, odd;  // the first and the third as 16 bits each, the second and the fourth
};
NOVACRON_INLINE Ints add_byte_products(Ints sum, ByteCell other, Words bytes) {
  sum = add_products_of_pairs(sum, bytes & 0x00ff00ffu, broadcast_word(other.even));
  return add_products_of_pairs(sum, (bytes >> 8) & 0x00ff00ffu, broadcast_word(other.odd));
}
NOVACRON_INLINE uint32_t pair(int8_t low, int8_t high) {
  return static_cast<uint16_t>(low) | static_cast<uint32_t>(static_cast<uint16_t>(high)) << 16;
}
NOVACRON_INLINE int8_t* bytes_before(ByteCell*, int8_t* room) { return room; }
NOVACRON_INLINE void make_byte_cells(const int8_t* from, int64_t count, ByteCell* to) {
  for (int64_t cell = 0; cell < count; ++cell, from += 4) {
    to[cell] = {pair(from[0], from[2]), pair(from[1], from[3])};
  }
}
#endif

// Memory for one call, without a trace of the standard library's templates; on the stack up to kNear
// elements, where asking for memory would take longer than what is done with it.
template <class T, int64_t kNear = 0>
class Scratch {
 public:
  explicit Scratch(int64_t size) : data_(size > kNear ? take(size) : near_) {}
  ~Scratch() {
    if (data_ != near_) free(data_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() const { return data_; }

 private:
  static T* take(int64_t size) {
    void* const found = aligned_alloc(64, divide_up(size * sizeof(T) + 1, 64) * 64);
    if (found == nullptr) abort();
    return static_cast<T*>(found);
  }

  alignas(64) T near_[kNear > 0 ? kNear : 1];
  T* const data_;
};

// Asks for memory that will be read soon. While many rows share a pass over weights, the processor
// does not look far enough ahead by itself. The address may lie beyond the end.
NOVACRON_INLINE void prefetch(const char* from, int64_t bytes) {
  for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(from + byte);
}

// Calls body(first, last) on the pool's threads.
template <class Body>
void parallel(ThreadPool& pool, int64_t num_tasks, int64_t grain, Body body) {
  pool.run(
      num_tasks, grain,
      [](void* argument, int64_t first, int64_t last) {
        (*static_cast<Body*>(argument))(first, last);
      },
      &body);
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
