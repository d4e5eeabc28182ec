// Vectors of floats as wide as the level has them, and the element types of buffers.
#pragma once

#include <cstdint>
#include <cstring>

#include "../level.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define NOVACRON_STRING_(text) #text
#define NOVACRON_STRING(text) NOVACRON_STRING_(text)
#define NOVACRON_INLINE inline __attribute__((always_inline))

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
  return (Floats)(__builtin_convertvector(x, Words) << 16);
}

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

NOVACRON_INLINE Floats choose(Ints condition, Floats yes, Floats no) {
  return (Floats)(((Ints)yes & condition) | ((Ints)no & ~condition));
}

// Halves are added to halves: the same tree at every call.
NOVACRON_INLINE float sum_of_lanes(Floats x) {
  float lanes[kLanes];
  store(lanes, x);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}
NOVACRON_INLINE float max_of_lanes(Floats x) {
  float lanes[kLanes];
  store(lanes, x);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) {
      if (!(lanes[lane] > lanes[lane + width])) lanes[lane] = lanes[lane + width];
    }
  }
  return lanes[0];
}

// e^x within about 1e-7 relative; below -87 as at -87. The polynomial is that of Cephes' expf.
NOVACRON_INLINE Floats exponential(Floats x) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  x = choose(x < -87.0f, broadcast(-87.0f), x);
  x = choose(x > 88.0f, broadcast(88.0f), x);
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

// Memory for one call, without a trace of the standard library's templates.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size)
      : data_(static_cast<T*>(aligned_alloc(64, divide_up(size * sizeof(T) + 1, 64) * 64))) {
    if (data_ == nullptr) abort();
  }
  ~Scratch() { free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() const { return data_; }

 private:
  T* data_;
};

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
