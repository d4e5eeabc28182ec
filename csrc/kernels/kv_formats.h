// How keys and values lie in a block of the cache, and how keys are multiplied.
//
// A block holds `block_size` tokens of one key-value head: first the data, then, where the format
// has them, the scales as [group][token] in bfloat16; a group is the dimensions that share one.
// Keys are [dim / elements of a cell][token][cell], a cell being 4 bytes, so that one load brings the
// same dimensions of neighbouring tokens. Values are [token][dim], but integers [token / 4][word][4],
// so that one load brings four tokens, to be multiplied in pairs.
//
// Integers are multiplied as such: a query, and the weights of values, become 16 bit with a scale
// of their own, which is finer than what the cache holds, and sums of products are exact.
#pragma once

#include <cmath>

#include "../kv_block.h"
#include "simd.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int64_t kTokensPerWord = 4;  // of integer values

typedef uint8_t Octets __attribute__((vector_size(kLanes)));

struct Float16 {
  uint16_t bits;
};
struct Float8 {  // e4m3 without infinities
  uint8_t bits;
};

// The bits of a short float without its sign, shifted to where a float has its mantissa, are a float
// that is too small by a power of two: subnormal ones included, and the way back rounds to nearest.
NOVACRON_INLINE Words narrow_magnitude(Floats x, int shift, float power) {
  const Words bits = (Words)((Floats)((Words)x & 0x7fffffffu) * power);
  return (bits + ((1u << (shift - 1)) - 1) + ((bits >> shift) & 1u)) >> shift;
}
NOVACRON_INLINE Words at_most(Words x, uint32_t limit) {
  const Words above = (Words)(x > limit);
  return (above & limit) | (~above & x);
}

NOVACRON_INLINE Floats widen_float16(Words bits) {
  const Words magnitude = (bits & 0x7fffu) << 13;
  const Words not_finite = (Words)(magnitude >= (0x7c00u << 13)) & 0x7f800000u;
  const Floats value = (Floats)magnitude * 0x1p112f;
  return (Floats)((Words)value | not_finite | ((bits & 0x8000u) << 16));
}
// Of the byte that a word has on top.
NOVACRON_INLINE Floats widen_float8(Words top) {
  return (Floats)((Words)((Ints)top >> 4) & 0x87f00000u);  // too small by 2^120
}

NOVACRON_INLINE Floats load(const Float16* from) {
  Halves x;
  memcpy(&x, from, sizeof x);
  return widen_float16(__builtin_convertvector(x, Words));
}
NOVACRON_INLINE void store(Float16* to, Floats x) {
  const Words magnitude = at_most(narrow_magnitude(x, 13, 0x1p-112f), 0x7c00u);
  const Words is_nan = (Words)(x != x) & 0x7e00u;
  const Halves halves =
      __builtin_convertvector(magnitude | is_nan | (((Words)x >> 16) & 0x8000u), Halves);
  memcpy(to, &halves, sizeof halves);
}
NOVACRON_INLINE Floats load(const Float8* from) {
  Octets x;
  memcpy(&x, from, sizeof x);
  return widen_float8(__builtin_convertvector(x, Words) << 24) * 0x1p120f;
}
NOVACRON_INLINE void store(Float8* to, Floats x) {
  const Words magnitude = at_most(narrow_magnitude(x, 20, 0x1p-120f), 0x7eu);
  const Octets bytes = __builtin_convertvector(magnitude | (((Words)x >> 24) & 0x80u), Octets);
  memcpy(to, &bytes, sizeof bytes);
}

// The largest magnitude; NaN if any of the numbers is not finite.
NOVACRON_INLINE float largest_magnitude(const float* x, int64_t size) {
  Floats largest = {}, poison = {};
  for_vectors(size, [&](int64_t index, int64_t count) {
    const Floats part = load_up_to(x + index, count);
    const Floats magnitude = (Floats)((Words)part & 0x7fffffffu);
    largest = larger_of(magnitude, largest);
    poison += part * 0.0f;
  });
  return max_of_lanes(largest) + sum_of_lanes(poison);
}

// The scale by which numbers up to `largest` become such up to `limit`, as the cache holds it.
inline BFloat16 scale_for(float largest, float limit) {
  BFloat16 scale[kLanes];
  store(scale, broadcast(largest / limit));
  return scale[0];
}
inline Floats divisor(BFloat16 scale) {
  const float value = load_some(&scale, 1)[0];
  return broadcast(value > 0x1p-100f ? value : INFINITY);  // by which all becomes zero
}

// Keys and values as floats of some precision, unscaled.
template <class Cells, int32_t kName>
struct PlainFormat {
  static constexpr int32_t kFormat = kName;
  using Element = typename Cells::Element;
  using Other = typename Cells::Other;
  using Sum = Floats;
  static constexpr bool kIsScaled = false, kIsInteger = false;
  static constexpr int64_t kElements = Cells::kElements;

  // `to` is zero beyond the query, which is held in floats or in the precision of the keys.
  static float prepare(const float* query, int64_t dims, Other* to) {
    if constexpr (sizeof(Other) == kElements * sizeof(float)) {
      memcpy(static_cast<void*>(to), query, dims * sizeof(float));
    } else {
      encode(query, dims, reinterpret_cast<Element*>(to), nullptr);
    }
    return 1.0f;
  }
  static NOVACRON_INLINE Floats add_product(Floats sum, const Other& other, Words cells) {
    return Cells::add_product(sum, other, cells);
  }
  static void encode(const float* from, int64_t dims, Element* to, BFloat16*) {
    for_vectors(dims, [&](int64_t dim, int64_t count) {
      store_up_to(to + dim, load_up_to(from + dim, count), count);
    });
  }
};

struct Float16Cells {
  using Element = Float16;
  static constexpr int64_t kElements = 2;
  struct __attribute__((may_alias)) Other {
    float even, odd;
  };
  static NOVACRON_INLINE Floats add_product(Floats sum, Other other, Words cells) {
    sum = multiply_add(broadcast(other.even), widen_float16(cells & 0xffffu), sum);
    return multiply_add(broadcast(other.odd), widen_float16(cells >> 16), sum);
  }
};

// e4m3 with a scale per token.
struct Float8Format {
  static constexpr int32_t kFormat = kKVFloat8;
  using Element = Float8;
  struct __attribute__((may_alias)) Other {
    float values[4];
  };
  using Sum = Floats;
  static constexpr bool kIsScaled = true, kIsInteger = false;
  static constexpr int64_t kElements = 4;
  static constexpr float kLimit = 448.0f;

  // Half of the 2^120 that widened keys lack goes into the query, half into its scale.
  static float prepare(const float* query, int64_t dims, Other* to) {
    for (int64_t dim = 0; dim < dims; ++dim) to[dim / 4].values[dim % 4] = query[dim] * 0x1p60f;
    return 0x1p60f;
  }
  static NOVACRON_INLINE Floats add_product(Floats sum, const Other& other, Words cells) {
    for (int i = 0; i < 4; ++i) {
      sum = multiply_add(broadcast(other.values[i]), widen_float8(cells << (24 - 8 * i)), sum);
    }
    return sum;
  }
  static void encode(const float* from, int64_t dims, Float8* to, BFloat16* scales) {
    scales[0] = scale_for(largest_magnitude(from, dims), kLimit);
    const Floats by = divisor(scales[0]);
    for_vectors(dims, [&](int64_t dim, int64_t count) {
      store_up_to(to + dim, load_up_to(from + dim, count) / by, count);
    });
  }
};

// Whole numbers around kOffset: 8 bits with a scale per token, 4 bits with one per 32 dimensions.
// A cell is kPairs pairs, of which pair p lies in bits [kBits * p, kBits * (p + 1)) of both halves.
template <int kBitsOfOne>
struct IntegerFormat {
  static constexpr int32_t kFormat = kBitsOfOne == 8 ? kKVInt8 : kKVInt4;
  static constexpr int kBits = kBitsOfOne;
  using Element = uint8_t;
  static constexpr bool kIsScaled = true, kIsInteger = true;
  static constexpr int64_t kElements = 32 / kBits;
  static constexpr int kPairs = kElements / 2;
  static constexpr int kPerByte = 8 / kBits;
  static constexpr int32_t kOffset = 1 << (kBits - 1);
  static constexpr uint32_t kMask = 0x00010001u * ((1u << kBits) - 1);
  static constexpr float kLimit = kOffset - 1;
  static constexpr float kQueryLimit = 32767.0f;
  static constexpr int64_t kHalf = kDimsPerScale / 2;  // dimensions of 4 bits, one in each half of bytes
  struct __attribute__((may_alias)) Other {
    uint32_t pairs[kPairs];
  };
  using Sum = Ints;

  // 16 bit in order, zero beyond the query.
  static float prepare(const float* query, int64_t dims, Other* to) {
    const float largest = largest_magnitude(query, dims);
    round_to_halves(query, dims, largest, reinterpret_cast<char*>(to));
    return largest / kQueryLimit;
  }
  // The sum before any product: what the offset of the keys would add to it.
  static int32_t start(const Other* query, int64_t cells) {
    return -kOffset * sum_of_halves(reinterpret_cast<const char*>(query), cells * kElements);
  }
  static NOVACRON_INLINE Ints add_product(Ints sum, const Other& other, Words cells) {
    for (int pair = 0; pair < kPairs; ++pair) {
      sum = add_products_of_pairs(sum, broadcast_word(other.pairs[pair]), pair_of(cells, kBits * pair));
    }
    return sum;
  }
  static NOVACRON_INLINE Words pair_of(Words words, int bit) { return (words >> bit) & kMask; }

  static void encode(const float* from, int64_t dims, uint8_t* to, BFloat16* scales) {
    const int64_t size = kv_group_size(kFormat, dims);
    for (int64_t first = 0; first < dims; first += size, ++scales) {
      const int64_t some = smaller(size, dims - first);
      *scales = scale_for(largest_magnitude(from + first, some), kLimit);
      const Floats by = divisor(*scales);
      for_vectors(some, [&](int64_t index, int64_t count) {
        Floats x = load_up_to(from + first + index, count) / by;
        x = choose(x > kLimit, broadcast(kLimit), x);
        x = choose(x < -kLimit, broadcast(-kLimit), x);
        const Words codes = (Words)(nearest(x) + kOffset) & ((1u << kBits) - 1);
        const Octets bytes = __builtin_convertvector(codes, Octets);
        memcpy(to + first + index, &bytes, count);
      });
    }
  }
  static uint32_t cell_of(const uint8_t* codes) {
    uint32_t cell = 0;
    for (int i = 0; i < kElements; ++i) {
      cell |= uint32_t{codes[i]} << (16 * (i % 2) + kBits * (i / 2));
    }
    return cell;
  }
  // Values: a word per dimension, or per two of 4 bits.
  static int64_t words_of(int64_t dims) { return kv_padded_dims(kFormat, dims) / kPerByte; }
  static uint8_t byte_of(const uint8_t* codes, int64_t word) {
    if (kBits == 8) return codes[word];
    const uint8_t* first = codes + word / kHalf * kDimsPerScale + word % kHalf;
    return static_cast<uint8_t>(first[0] | first[kHalf] << 4);
  }
  // Where the dimensions of word `word` and those after it lie, `part` of a byte.
  static int64_t dim_of(int64_t word, int part) {
    if (kBits == 8) return word;
    return word / kHalf * kDimsPerScale + word % kHalf + part * kHalf;
  }
  // Tokens (0, 1) and (2, 3) of a word are its pairs, as those of a cell are.
  static int byte_of_token(int64_t token) {
    return static_cast<int>(2 * (token % 2) + token / 2 % 2);
  }

  // Returns the sum of the halves.
  static NOVACRON_INLINE int32_t round_to_halves(const float* x, int64_t size, float largest,
                                                 char* to) {
    const Floats factor = broadcast(largest > 0x1p-100f ? kQueryLimit / largest : 0.0f);
    Ints total = {};
    for_vectors(size, [&](int64_t index, int64_t count) {
      const Ints whole = nearest(load_up_to(x + index, count) * factor);
      const Halves halves = __builtin_convertvector((Words)whole, Halves);
      memcpy(to + index * 2, &halves, count * 2);
      total += whole;
    });
    return sum_of_lanes(total);
  }
  static int32_t sum_of_halves(const char* from, int64_t size) {
    Ints sums = {};
    int64_t index = 0;
    for (; index + 2 * kLanes <= size; index += 2 * kLanes) {
      sums = add_products_of_pairs(sums, load_words(from + index * 2), broadcast_word(0x00010001u));
    }
    if (index < size) {
      Words rest = {};
      memcpy(&rest, from + index * 2, (size - index) * 2);
      sums = add_products_of_pairs(sums, rest, broadcast_word(0x00010001u));
    }
    return sum_of_lanes(sums);
  }
};

using Float32Format = PlainFormat<FloatCells, kKVFloat32>;
using BFloat16Format = PlainFormat<BFloat16Cells, kKVBFloat16>;
using Float16Format = PlainFormat<Float16Cells, kKVFloat16>;
using Int8Format = IntegerFormat<8>;
using Int4Format = IntegerFormat<4>;

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
