// Attention over paged blocks, for any mix of prompt chunks and decodes.
//
// A query (one head of one token) goes over the keys that it may see in groups of 64 positions, with
// an online softmax (2205.14135) from group to group. Sixteen groups, counted from the start of the
// sequence, are a segment; segments are computed apart and folded in their order, so that several
// threads can share a long sequence. Queries of one task share what is loaded; what a query computes
// depends on its position and window alone.
#pragma once

#include <cmath>

#include "kv_store.h"
#include "softmaxes.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int kGroup = 64;            // keys per step of the softmax
constexpr int64_t kSegment = 16 * kGroup;  // keys
constexpr int kTogether = 4;          // queries that share the loads of keys and values
constexpr int kQueriesPerTask = 32;
constexpr int kVectorsTogether = kLanes == 16 ? 4 : 2;
constexpr int kGroupVectors = kGroup / kLanes;
constexpr int64_t kTasksPerThread = 4;  // below this, segments become tasks of their own

// A multiple of kLanes that holds all dimensions of a format.
template <class Format>
int64_t padded_dim(const AttentionCall& call) {
  return divide_up(kv_padded_dims(Format::kFormat, call.head_dim), kLanes) * kLanes;
}

// Some tokens of a row with all query heads that share one key-value head.
struct Tile {
  int64_t row, kv_head, first, last;
};

template <class Format>
class QueryTile {
  using Element = typename Format::Element;
  using Other = typename Format::Other;
  using Sum = typename Format::Sum;

 public:
  QueryTile(const AttentionCall& call, const Tile& tile)
      : call_(call),
        layout_(call),
        table_(call.block_tables + tile.row * call.table_stride),
        head_dim_(call.head_dim),
        padded_dim_(padded_dim<Format>(call)),
        group_cells_(kv_group_size(Format::kFormat, call.head_dim) / Format::kElements),
        groups_(divide_up(layout_.cells, group_cells_)),
        heads_(call.num_heads / call.num_kv_heads),
        first_head_(tile.kv_head * heads_),
        first_token_(call.rows[tile.row * 3] + tile.first),
        first_position_(call.rows[tile.row * 3 + 1] + tile.first),
        num_queries_((tile.last - tile.first) * heads_),
        queries_(num_queries_ * layout_.cells),
        query_scales_(num_queries_),
        query_starts_(num_queries_ * groups_) {
    const int64_t head_start = tile.kv_head * call.cache_head_stride;
    keys_ = static_cast<const char*>(call.key_cache) + head_start;
    values_ = static_cast<const char*>(call.value_cache) + head_start;
  }

  // What the queries see in all segments, written out. Both arguments are memory for softmaxes.
  void attend_all(float* total, float* part) {
    const Softmaxes all(total, padded_dim_);
    all.clear(num_queries_);
    const int64_t last = last_position() / kSegment;
    for (int64_t segment = first_seen(0) / kSegment; segment <= last; ++segment) {
      attend(segment, part);
      all.fold(softmaxes_, num_queries_);
    }
    write(all);
  }

  // What the queries see in one segment.
  void attend(int64_t segment, float* part) {
    softmaxes_ = Softmaxes(part, padded_dim_);
    softmaxes_.clear(num_queries_);
    const int64_t begin = larger(segment * kSegment, first_seen(0) / kGroup * kGroup);
    const int64_t end = smaller((segment + 1) * kSegment, last_position() + 1);
    if (begin >= end) return;
    prepare();
    for (int64_t start = begin; start < end; start += kGroup) see_group(start);
  }

  // Folds parts that lie `stride` floats apart, and writes the result.
  void finish(float* parts, int64_t num_parts, int64_t stride) const {
    const Softmaxes all(parts, padded_dim_);
    for (int64_t part = 1; part < num_parts; ++part) {
      all.fold(Softmaxes(parts + part * stride, padded_dim_), num_queries_);
    }
    write(all);
  }

 private:
  int64_t position(int64_t query) const { return first_position_ + query / heads_; }
  int64_t last_position() const { return position(num_queries_ - 1); }
  int64_t first_seen(int64_t query) const {
    return call_.window == 0 ? 0 : larger(0, position(query) + 1 - call_.window);
  }
  const char* block_of(const char* cache, int64_t place) const {
    return cache + table_[place / call_.block_size] * call_.cache_block_stride;
  }

  void write(const Softmaxes& total) const {
    for (int64_t query = 0; query < num_queries_; ++query) {
      const int64_t token = first_token_ + query / heads_;
      const int64_t head = first_head_ + query % heads_;
      const int64_t at = (token * call_.num_heads + head) * head_dim_;
      const float factor = 1.0f / total.weight(query);
      for_vectors(head_dim_, [&](int64_t dim, int64_t count) {
        const Floats seen = load(total.sums(query) + dim) * factor;
        if (call_.type == kFloat32) {
          store_up_to(static_cast<float*>(call_.out) + at + dim, seen, count);
        } else {
          store_up_to(static_cast<BFloat16*>(call_.out) + at + dim, seen, count);
        }
      });
    }
  }

  void prepare() {
    if (is_prepared_) return;
    is_prepared_ = true;
    Scratch<float> row(head_dim_);
    memset(static_cast<void*>(queries_.data()), 0, num_queries_ * layout_.cells * sizeof(Other));
    for (int64_t query = 0; query < num_queries_; ++query) {
      const int64_t start = (first_token_ + query / heads_) * call_.query_token_stride +
                            (first_head_ + query % heads_) * call_.query_head_stride;
      to_floats(call_.type, call_.query, start, head_dim_, row.data());
      query_scales_.data()[query] =
          Format::prepare(row.data(), head_dim_, queries_.data() + query * layout_.cells);
      if constexpr (Format::kIsInteger) {
        for (int64_t group = 0; group < groups_; ++group) {
          query_starts_.data()[query * groups_ + group] = Format::start(
              queries_.data() + query * layout_.cells + group * group_cells_, group_cells_);
        }
      }
    }
  }

  // All queries see the keys [start, start + kGroup).
  void see_group(int64_t start) {
    for (int64_t query = 0; query < num_queries_; query += kTogether) {
      switch (smaller(kTogether, num_queries_ - query)) {
        case 1: step<1>(query, start); break;
        case 2: step<2>(query, start); break;
        case 3: step<3>(query, start); break;
        default: step<4>(query, start); break;
      }
    }
  }

  template <int kQueries>
  void step(int64_t query, int64_t start) {
    const int64_t begin = larger(start, first_seen(query));
    const int64_t end = smaller(start + kGroup, position(query + kQueries - 1) + 1);
    if (begin >= end) return;
    alignas(64) float scores[kQueries][kGroup];
    float decay[kQueries];
    for (int vector = 0; start + vector * kLanes < end; vector += kVectorsTogether) {
      add_scores<kQueries>(query, start + vector * kLanes, end, &scores[0][vector * kLanes]);
    }
    for (int i = 0; i < kQueries; ++i) decay[i] = soften(query + i, start, scores[i]);
    if constexpr (Format::kIsInteger) {
      add_integers<kQueries>(query, start, begin, end, &scores[0][0], decay);
    } else {
      add_floats<kQueries>(query, start, begin, end, &scores[0][0], decay);
    }
  }

  // Where kLanes neighbouring tokens lie: in one block, or in two of eight.
  struct Places {
    const char* near;
    const char* far;  // or null
    int64_t offset;   // in the block

    // `bytes` of a token, tokens side by side, from `start` in the block.
    template <int kBytes, class Vector>
    NOVACRON_INLINE Vector load_at(int64_t start) const {
      Vector x;
      if (kLanes == 16 && far != nullptr) {
        char lanes[kLanes * kBytes];
        memcpy(lanes, near + start, sizeof lanes / 2);
        memcpy(lanes + sizeof lanes / 2, far + start, sizeof lanes / 2);
        memcpy(&x, lanes, sizeof x);
      } else {
        memcpy(&x, near + start + offset * kBytes, sizeof x);
      }
      return x;
    }
  };
  NOVACRON_INLINE Places places_from(const char* cache, int64_t place, int64_t end) const {
    Places places = {block_of(cache, place), nullptr, place % call_.block_size};
    if (call_.block_size < kLanes) {
      const int64_t other = place + call_.block_size < end ? place + call_.block_size : place;
      places.far = block_of(cache, other);
    }
    return places;
  }
  NOVACRON_INLINE Floats load_scales(const Places& places, int64_t group) const {
    const int64_t start = layout_.scales_start + group * call_.block_size * 2;
    const Halves bits = places.template load_at<2, Halves>(start);
    return (Floats)(__builtin_convertvector(bits, Words) << 16);
  }

  // Products of the queries with the keys from `place` on; those from `end` on are not meant.
  template <int kQueries>
  void add_scores(int64_t query, int64_t place, int64_t end, float* scores) const {
    Places places[kVectorsTogether];
    for (int v = 0; v < kVectorsTogether; ++v) {
      places[v] = places_from(keys_, place + v * kLanes < end ? place + v * kLanes : place, end);
    }
    const Other* queries = queries_.data() + query * layout_.cells;
    for (int64_t group = 0; group < groups_; ++group) {
      const int64_t first = group * group_cells_;
      const int64_t last = smaller(first + group_cells_, layout_.cells);
      Sum sum[kQueries][kVectorsTogether];
      for (int i = 0; i < kQueries; ++i) {
        Sum start = {};
        if constexpr (Format::kIsInteger) {
          start += query_starts_.data()[(query + i) * groups_ + group];
        }
        for (int v = 0; v < kVectorsTogether; ++v) sum[i][v] = start;
      }
      for (int64_t cell = first; cell < last; ++cell) {
        const int64_t offset = cell * call_.block_size * 4;
        for (int v = 0; v < kVectorsTogether; ++v) {
          const Words keys = places[v].template load_at<4, Words>(offset);
          for (int i = 0; i < kQueries; ++i) {
            sum[i][v] = Format::add_product(sum[i][v], queries[i * layout_.cells + cell], keys);
          }
        }
      }
      for (int v = 0; v < kVectorsTogether; ++v) {
        Floats scale = {};
        if constexpr (Format::kIsScaled) scale = load_scales(places[v], group);
        for (int i = 0; i < kQueries; ++i) {
          float* to = scores + i * kGroup + v * kLanes;
          Floats score;
          if constexpr (Format::kIsInteger) {
            score = __builtin_convertvector(sum[i][v], Floats);
          } else {
            score = sum[i][v];
          }
          if constexpr (Format::kIsScaled) score = score * query_scales_.data()[query + i] * scale;
          store(to, group == 0 ? score : load(to) + score);
        }
      }
    }
  }

  // Turns a query's scores into weights, zero where it may not look. Returns the factor that the
  // sums so far shrink by.
  float soften(int64_t query, int64_t start, float* scores) {
    const int64_t low = first_seen(query) - start;
    const int64_t high = position(query) + 1 - start;
    if (low >= kGroup || high <= 0) {
      memset(scores, 0, kGroup * sizeof(float));
      return 1.0f;
    }
    Ints lane;
    for (int i = 0; i < kLanes; ++i) lane[i] = i;
    Floats capped[kGroupVectors];
    Ints seen[kGroupVectors];
    Floats highest = broadcast(-INFINITY);
    for (int v = 0; v < kGroupVectors; ++v) {
      const int32_t base = v * kLanes;
      seen[v] = (lane + base >= static_cast<int32_t>(larger(low, 0))) &
                (lane + base < static_cast<int32_t>(smaller(high, kGroup)));
      Floats score = load(scores + base) * call_.scale;
      if (call_.softcap != 0.0f) {
        score = hyperbolic_tangent(score / call_.softcap) * call_.softcap;
      }
      capped[v] = choose(seen[v], score, broadcast(-INFINITY));
      highest = choose(highest > capped[v], highest, capped[v]);
    }
    float& maximum = softmaxes_.maximum(query);
    const float group_maximum = max_of_lanes(highest);
    const float new_maximum = maximum > group_maximum ? maximum : group_maximum;
    Floats total = {};
    for (int v = 0; v < kGroupVectors; ++v) {
      const Floats weight =
          choose(seen[v], exponential(capped[v] - new_maximum), Floats{});
      store(scores + v * kLanes, weight);
      total += weight;
    }
    const float decay = exponential(broadcast(maximum - new_maximum))[0];
    float& weight = softmaxes_.weight(query);
    weight = weight * decay + sum_of_lanes(total);
    maximum = new_maximum;
    return decay;
  }

  // Weights of the group's keys times the scales of their values. Beyond `end` weights are zero.
  void scale_weights(const float* weights, int64_t start, int64_t end, int64_t group,
                     float* to) const {
    for (int v = 0; v < kGroupVectors; ++v) {
      const int64_t place = start + v * kLanes;
      const Places places = places_from(values_, place < end ? place : start, end);
      store(to + v * kLanes, load(weights + v * kLanes) * load_scales(places, group));
    }
  }

  // Weighted values of the keys [begin, end) are added to what `decay` leaves of the sums.
  template <int kQueries>
  void add_floats(int64_t query, int64_t start, int64_t begin, int64_t end, float* weights,
                  const float* decay) {
    if constexpr (Format::kIsScaled) {
      for (int i = 0; i < kQueries; ++i) {
        scale_weights(weights + i * kGroup, start, end, 0, weights + i * kGroup);
      }
    }
    int64_t dim = 0;
    for (; dim + kVectorsTogether * kLanes <= head_dim_; dim += kVectorsTogether * kLanes) {
      add_values<kQueries, kVectorsTogether>(query, start, begin, end, dim, weights, decay);
    }
    for (; dim < head_dim_; dim += kLanes) {
      add_values<kQueries, 1>(query, start, begin, end, dim, weights, decay);
    }
  }

  template <int kQueries, int kVectors>
  void add_values(int64_t query, int64_t start, int64_t begin, int64_t end, int64_t dim,
                  const float* weights, const float* decay) {
    Floats sum[kQueries][kVectors];
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        sum[i][v] = load(softmaxes_.sums(query + i) + dim + v * kLanes) * decay[i];
      }
    }
    const int64_t count = smaller(kLanes, head_dim_ - dim);
    for (int64_t place = begin; place < end;) {
      const int64_t last = smaller(end, (place / call_.block_size + 1) * call_.block_size);
      const Element* value = reinterpret_cast<const Element*>(block_of(values_, place)) +
                             place % call_.block_size * head_dim_ + dim;
      for (; place < last; ++place, value += head_dim_) {
        Floats parts[kVectors];
        for (int v = 0; v < kVectors; ++v) {
          parts[v] = kVectors == 1 ? load_up_to(value, count) : load(value + v * kLanes);
        }
        for (int i = 0; i < kQueries; ++i) {
          const Floats weight = broadcast(weights[i * kGroup + place - start]);
          for (int v = 0; v < kVectors; ++v) {
            sum[i][v] = multiply_add(weight, parts[v], sum[i][v]);
          }
        }
      }
    }
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        store(softmaxes_.sums(query + i) + dim + v * kLanes, sum[i][v]);
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
  void add_integers(int64_t query, int64_t start, int64_t begin, int64_t end, const float* weights,
                    const float* decay) {
    alignas(64) float scaled[kGroup];
    alignas(64) char halves[kQueries][kGroup * 2];
    IntegerWeights whole[kQueries];
    const int64_t words = Format::words_of(head_dim_) / groups_;
    for (int64_t group = 0; group < groups_; ++group) {
      for (int i = 0; i < kQueries; ++i) {
        scale_weights(weights + i * kGroup, start, end, group, scaled);
        const float largest = largest_magnitude(scaled, kGroup);
        Format::round_to_halves(scaled, kGroup, largest, halves[i]);
        whole[i] = {halves[i], largest / Format::kQueryLimit,
                    -Format::kOffset * Format::sum_of_halves(halves[i], kGroup)};
      }
      constexpr int kVectors = Format::kPerByte == 1 ? kVectorsTogether : 1;
      int64_t word = 0;
      for (; word + kVectors * kLanes <= words; word += kVectors * kLanes) {
        add_words<kQueries, kVectors>(query, start, begin, end, group * words + word, whole, decay);
      }
      for (; word < words; word += kLanes) {
        add_words<kQueries, 1>(query, start, begin, end, group * words + word, whole, decay);
      }
    }
  }
  template <int kQueries, int kVectors>
  void add_words(int64_t query, int64_t start, int64_t begin, int64_t end, int64_t word,
                 const IntegerWeights* weights, const float* decay) {
    constexpr int kPerByte = Format::kPerByte;
    Ints sum[kQueries][kVectors][kPerByte];
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        for (int part = 0; part < kPerByte; ++part) sum[i][v][part] = Ints{} + weights[i].start;
      }
    }
    const int64_t words = Format::words_of(head_dim_);
    const int64_t count = smaller(kLanes, words - word);
    for (int64_t place = begin / kTokensPerWord * kTokensPerWord; place < end;) {
      const int64_t last = smaller(end, (place / call_.block_size + 1) * call_.block_size);
      const char* values = block_of(values_, place) +
                           (place % call_.block_size / kTokensPerWord * words + word) * 4;
      for (; place < last; place += kTokensPerWord, values += words * 4) {
        for (int v = 0; v < kVectors; ++v) {
          Words four = {};
          if (count == kLanes) {
            four = load_words(values + v * kLanes * 4);
          } else {
            memcpy(&four, values, count * 4);
          }
          for (int pair = 0; pair < 2; ++pair) {
            for (int part = 0; part < kPerByte; ++part) {
              const Words two = Format::pair_of(four, 8 * pair + Format::kBits * part);
              for (int i = 0; i < kQueries; ++i) {
                uint32_t both;
                memcpy(&both, weights[i].halves + (place - start + 2 * pair) * 2, 4);
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
          float* to = softmaxes_.sums(query + i) + Format::dim_of(word + v * kLanes, part);
          const Floats seen = __builtin_convertvector(sum[i][v][part], Floats);
          store(to, load(to) * decay[i] + seen * weights[i].factor);
        }
      }
    }
  }

  const AttentionCall& call_;
  const BlockLayout<Format> layout_;
  const int64_t* table_;
  const char* keys_;
  const char* values_;
  const int64_t head_dim_, padded_dim_, group_cells_, groups_;
  const int64_t heads_, first_head_, first_token_, first_position_, num_queries_;
  Scratch<Other> queries_;
  Scratch<float> query_scales_;
  Scratch<int32_t> query_starts_;  // of sums of products with integers
  bool is_prepared_ = false;
  Softmaxes softmaxes_{nullptr, 0};  // of the segment at hand
};

template <class Format>
void attend_with(ThreadPool& pool, const AttentionCall& call) {
  constexpr int64_t kElementsWorthStoring = 16 * 1024;
  const int64_t per_token = 2 * call.num_kv_heads * call.head_dim;
  parallel(pool, call.num_tokens, divide_up(kElementsWorthStoring, per_token),
           [&](int64_t token, int64_t last) {
             TokenStore<Format> store(call);
             for (; token < last; ++token) store.store(token);
           });

  const int64_t tile_tokens = larger(1, kQueriesPerTask / (call.num_heads / call.num_kv_heads));
  Scratch<int64_t> first_tiles(call.num_rows + 1);  // of each row, in the numbering of tiles
  int64_t num_tiles = 0, keys = 0, longest = 0;
  for (int64_t row = 0; row < call.num_rows; ++row) {
    const int64_t tokens = call.rows[row * 3 + 2], length = call.rows[row * 3 + 1] + tokens;
    first_tiles.data()[row] = num_tiles;
    num_tiles += divide_up(tokens, tile_tokens);
    keys += tokens * length;
    longest = larger(longest, length);
  }
  first_tiles.data()[call.num_rows] = num_tiles;
  const auto tile_of = [&](int64_t task, int64_t* row) {
    const int64_t index = task / call.num_kv_heads;
    while (first_tiles.data()[*row + 1] <= index) ++*row;
    const int64_t first = (index - first_tiles.data()[*row]) * tile_tokens;
    const int64_t last = smaller(first + tile_tokens, call.rows[*row * 3 + 2]);
    return Tile{*row, task % call.num_kv_heads, first, last};
  };

  const int64_t tasks = num_tiles * call.num_kv_heads;
  const int64_t floats = Softmaxes::floats_for(
      tile_tokens * (call.num_heads / call.num_kv_heads), padded_dim<Format>(call));
  const int64_t worth_sharing = pool.is_awake() ? 64 * 1024 : 512 * 1024;
  const bool share = keys * call.num_heads * call.head_dim > worth_sharing;
  if (!share || tasks >= kTasksPerThread * pool.num_threads() || longest <= kSegment) {
    parallel(pool, tasks, share ? 1 : tasks, [&](int64_t task, int64_t last) {
      Scratch<float> total(floats), part(floats);
      for (int64_t row = 0; task < last; ++task) {
        QueryTile<Format>(call, tile_of(task, &row)).attend_all(total.data(), part.data());
      }
    });
    return;
  }
  // A few long tiles: their segments are shared out, then folded.
  const int64_t segments = divide_up(longest, kSegment);
  Scratch<float> parts(tasks * segments * floats);
  parallel(pool, tasks * segments, 1, [&](int64_t index, int64_t last) {
    for (int64_t row = 0; index < last; ++index) {
      QueryTile<Format>(call, tile_of(index / segments, &row))
          .attend(index % segments, parts.data() + index * floats);
    }
  });
  for (int64_t task = 0, row = 0; task < tasks; ++task) {
    QueryTile<Format>(call, tile_of(task, &row))
        .finish(parts.data() + task * segments * floats, segments, floats);
  }
}

void attend(ThreadPool& pool, const AttentionCall& call) {
  switch (call.kv_format) {
    case kKVFloat32: return attend_with<Float32Format>(pool, call);
    case kKVBFloat16: return attend_with<BFloat16Format>(pool, call);
    case kKVFloat16: return attend_with<Float16Format>(pool, call);
    case kKVInt8: return attend_with<Int8Format>(pool, call);
    case kKVFloat8: return attend_with<Float8Format>(pool, call);
    default: return attend_with<Int4Format>(pool, call);
  }
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
