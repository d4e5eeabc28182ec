// Sums of weighted values, in whatever format the cache holds these.
#pragma once

#include "kv_store.h"
#include "softmaxes.h"
#include "tile.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

struct ValuePass;

// Up to kTogether queries from `query` on, and which values they see: [begin, end) of the group of
// keys from `start` on. `weights` are [query][kGroup], zero for what a query does not see; `decay` is
// what each keeps of its sums so far.
struct Weighted {
  int64_t query, start, begin, end;
  const float* weights;
  const float* decay;
};

// What the format of values decides, chosen once per call.
struct ValueFormat {
  void (*store_tokens)(const AttentionCall& call, int64_t token, int64_t last);
  // Adds the weighted values to the sums of `count` queries.
  void (*add)(const ValuePass& pass, const Softmaxes& to, const Weighted& seen, int64_t count);
};

// The values that a tile sees, and how they are divided.
struct ValuePass {
  ValuePass(const ValueFormat& format, const Tile& tile)
      : format(format),
        values(tile, tile.call.value_cache),
        head_dim(tile.call.head_dim),
        groups(kv_padded_dims(tile.call.value_cache.format, head_dim) /
               kv_group_size(tile.call.value_cache.format, head_dim)) {}

  void add(const Softmaxes& to, const Weighted& seen, int64_t count) const {
    format.add(*this, to, seen, count);
  }

  const ValueFormat& format;
  const PagedHead values;
  const int64_t head_dim, groups;  // groups of dimensions that share a scale
};

template <class Format>
struct ValuesIn {
  using Element = typename Format::Element;

  static void store_tokens(const AttentionCall& call, int64_t token, int64_t last) {
    const TokenStore<Format> store(call, call.value_cache);
    for (; token < last; ++token) store.store_values(token);
  }

  static void add(const ValuePass& pass, const Softmaxes& to, const Weighted& seen,
                  int64_t count) {
    switch (count) {
      case 1: return add_together<1>(pass, to, seen);
      case 2: return add_together<2>(pass, to, seen);
      case 3: return add_together<3>(pass, to, seen);
      default: return add_together<4>(pass, to, seen);
    }
  }
  template <int kQueries>
  static void add_together(const ValuePass& pass, const Softmaxes& to, const Weighted& seen) {
    if constexpr (Format::kIsInteger) {
      add_integers<kQueries>(pass, to, seen);
    } else {
      add_floats<kQueries>(pass, to, seen);
    }
  }

  // Weights of the group's keys times the scales of their values, as [query][kGroup]. Beyond `end`
  // weights are zero.
  template <int kQueries>
  static NOVACRON_INLINE void scale_weights(const ValuePass& pass, const Weighted& seen,
                                            int64_t group, float* to) {
    for (int v = 0; v < kGroupVectors; ++v) {
      const int64_t place = seen.start + v * kLanes;
      const PagedHead::Places places =
          pass.values.places_from(place < seen.end ? place : seen.start, seen.end);
      const Floats scales = pass.values.load_scales(places, group);
      for (int64_t at = v * kLanes; at < kQueries * kGroup; at += kGroup) {
        store(to + at, load(seen.weights + at) * scales);
      }
    }
  }

  template <int kQueries>
  static void add_floats(const ValuePass& pass, const Softmaxes& to, Weighted seen) {
    alignas(64) float scaled[Format::kIsScaled ? kQueries * kGroup : 1];
    if constexpr (Format::kIsScaled) {
      scale_weights<kQueries>(pass, seen, 0, scaled);
      seen.weights = scaled;
    }
    int64_t dim = 0;
    for (; dim + kVectorsTogether * kLanes <= pass.head_dim; dim += kVectorsTogether * kLanes) {
      add_values<kQueries, kVectorsTogether>(pass, to, seen, dim);
    }
    for (; dim < pass.head_dim; dim += kLanes) add_values<kQueries, 1>(pass, to, seen, dim);
  }

  template <int kQueries, int kVectors>
  static void add_values(const ValuePass& pass, const Softmaxes& to, const Weighted& seen,
                         int64_t dim) {
    Floats sum[kQueries][kVectors];
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        sum[i][v] = load(to.sums(seen.query + i) + dim + v * kLanes) * seen.decay[i];
      }
    }
    const int64_t head_dim = pass.head_dim;
    const int64_t count = smaller(kLanes, head_dim - dim);
    for (int64_t place = seen.begin; place < seen.end;) {
      const int64_t last = smaller(seen.end, pass.values.next_block(place));
      const Element* value = reinterpret_cast<const Element*>(pass.values.block_of(place)) +
                             pass.values.offset_of(place) * head_dim + dim;
      for (; place < last; ++place, value += head_dim) {
        Floats parts[kVectors];
        for (int v = 0; v < kVectors; ++v) {
          parts[v] = kVectors == 1 ? load_up_to(value, count) : load(value + v * kLanes);
        }
        for (int i = 0; i < kQueries; ++i) {
          const Floats weight = broadcast(seen.weights[i * kGroup + place - seen.start]);
          for (int v = 0; v < kVectors; ++v) {
            sum[i][v] = multiply_add(weight, parts[v], sum[i][v]);
          }
        }
      }
    }
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        store(to.sums(seen.query + i) + dim + v * kLanes, sum[i][v]);
      }
    }
  }

  struct IntegerWeights {
    const char* halves;
    float factor;
    int32_t start;  // what the offset of the values would add to the sum
  };

  // As add_floats, in whole numbers: weights times scales become 16 bit with a factor.
  template <int kQueries>
  static void add_integers(const ValuePass& pass, const Softmaxes& to, const Weighted& seen) {
    alignas(64) float scaled[kQueries * kGroup];
    alignas(64) char halves[kQueries][kGroup * 2];
    IntegerWeights whole[kQueries];
    const int64_t words = Format::words_of(pass.head_dim) / pass.groups;
    for (int64_t group = 0; group < pass.groups; ++group) {
      scale_weights<kQueries>(pass, seen, group, scaled);
      for (int i = 0; i < kQueries; ++i) {
        const float largest = largest_magnitude(scaled + i * kGroup, kGroup);
        const int32_t sum =
            Format::round_to_halves(scaled + i * kGroup, kGroup, largest, halves[i]);
        whole[i] = {halves[i], largest / Format::kQueryLimit, -Format::kOffset * sum};
      }
      constexpr int kVectors = Format::kPerByte == 1 ? kVectorsTogether : 1;
      int64_t word = 0;
      for (; word + kVectors * kLanes <= words; word += kVectors * kLanes) {
        add_words<kQueries, kVectors>(pass, to, seen, group * words + word, whole);
      }
      for (; word < words; word += kLanes) {
        add_words<kQueries, 1>(pass, to, seen, group * words + word, whole);
      }
    }
  }

  template <int kQueries, int kVectors>
  static void add_words(const ValuePass& pass, const Softmaxes& to, const Weighted& seen,
                        int64_t word, const IntegerWeights* weights) {
    constexpr int kPerByte = Format::kPerByte;
    Ints sum[kQueries][kVectors][kPerByte];
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        for (int part = 0; part < kPerByte; ++part) sum[i][v][part] = Ints{} + weights[i].start;
      }
    }
    const int64_t words = Format::words_of(pass.head_dim);
    const int64_t count = smaller(kLanes, words - word);
    for (int64_t place = seen.begin / kTokensPerWord * kTokensPerWord; place < seen.end;) {
      const int64_t last = smaller(seen.end, pass.values.next_block(place));
      const char* values = pass.values.block_of(place) +
                           (pass.values.offset_of(place) / kTokensPerWord * words + word) * 4;
      for (; place < last; place += kTokensPerWord, values += words * 4) {
        for (int v = 0; v < kVectors; ++v) {
          Words four = {};
          if (kVectors > 1 || count == kLanes) {
            four = load_words(values + v * kLanes * 4);
          } else {
            memcpy(&four, values, count * 4);
          }
          for (int pair = 0; pair < 2; ++pair) {
            for (int part = 0; part < kPerByte; ++part) {
              const Words two = Format::pair_of(four, 8 * pair + Format::kBits * part);
              for (int i = 0; i < kQueries; ++i) {
                uint32_t both;
                memcpy(&both, weights[i].halves + (place - seen.start + 2 * pair) * 2, 4);
                sum[i][v][part] = add_products_of_pairs(sum[i][v][part], broadcast_word(both), two);
              }
            }
          }
        }
      }
    }
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        for (int part = 0; part < kPerByte; ++part) {
          float* at = to.sums(seen.query + i) + Format::dim_of(word + v * kLanes, part);
          const Floats added = __builtin_convertvector(sum[i][v][part], Floats);
          store(at, load(at) * seen.decay[i] + added * weights[i].factor);
        }
      }
    }
  }

  static constexpr ValueFormat kFormat = {store_tokens, add};
};

inline const ValueFormat& value_format(int32_t format) {
  switch (format) {
    case kKVFloat32: return ValuesIn<Float32Format>::kFormat;
    case kKVBFloat16: return ValuesIn<BFloat16Format>::kFormat;
    case kKVFloat16: return ValuesIn<Float16Format>::kFormat;
    case kKVInt8: return ValuesIn<Int8Format>::kFormat;
    case kKVFloat8: return ValuesIn<Float8Format>::kFormat;
    default: return ValuesIn<Int4Format>::kFormat;
  }
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
