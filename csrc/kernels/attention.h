// Attention over paged blocks, for any mix of prompt chunks and decodes.
//
// A query (one head of one token) goes over the keys that it may see in groups of 64 positions,
// counted from the start of its sequence, with an online softmax (2205.14135) from group to group.
// Queries of one task share what is loaded; what a query computes depends on its position and
// window alone.
#pragma once

#include <cmath>

#include "simd.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int kGroup = 64;         // keys per step of the softmax
constexpr int kTogether = 4;       // queries that share the loads of keys and values
constexpr int kQueriesPerTask = 32;
constexpr int kVectorsTogether = kLanes == 16 ? 4 : 2;
constexpr int kGroupVectors = kGroup / kLanes;

// One key-value head of a row, and some tokens of that row with all query heads that share it.
template <class Cells>
class QueryTile {
  using T = typename Cells::Element;
  using Other = typename Cells::Other;

 public:
  QueryTile(const AttentionCall& call, int64_t row, int64_t kv_head, int64_t first, int64_t last)
      : call_(call),
        table_(call.block_tables + row * call.table_stride),
        head_dim_(call.head_dim),
        padded_dim_(divide_up(call.head_dim, kLanes) * kLanes),
        cells_(divide_up(call.head_dim, Cells::kElements)),
        heads_(call.num_heads / call.num_kv_heads),
        first_head_(kv_head * heads_),
        first_token_(call.rows[row * 3] + first),
        first_position_(call.rows[row * 3 + 1] + first),
        num_queries_((last - first) * heads_),
        queries_(num_queries_ * cells_),
        sums_(num_queries_ * padded_dim_),
        maxima_(num_queries_),
        weights_(num_queries_) {
    const int64_t head_size = call.num_blocks * call.block_size * head_dim_;
    keys_ = static_cast<const T*>(call.key_cache) + kv_head * head_size;
    values_ = static_cast<const T*>(call.value_cache) + kv_head * head_size;
    for (int64_t query = 0; query < num_queries_; ++query) {
      const T* from = static_cast<const T*>(call.query) +
                      (first_token_ + query / heads_) * call.query_token_stride +
                      (first_head_ + query % heads_) * call.query_head_stride;
      Cells::prepare(from, head_dim_, queries_.data() + query * cells_);
      maxima_.data()[query] = -INFINITY;
      weights_.data()[query] = 0.0f;
    }
    memset(sums_.data(), 0, num_queries_ * padded_dim_ * sizeof(float));
  }

  void run() {
    const int64_t last_position = position(num_queries_ - 1);
    for (int64_t start = first_seen(0) / kGroup * kGroup; start <= last_position; start += kGroup) {
      for (int64_t query = 0; query < num_queries_; query += kTogether) {
        switch (smaller(kTogether, num_queries_ - query)) {
          case 1: step<1>(query, start); break;
          case 2: step<2>(query, start); break;
          case 3: step<3>(query, start); break;
          default: step<4>(query, start); break;
        }
      }
    }
    finish();
  }

 private:
  int64_t position(int64_t query) const { return first_position_ + query / heads_; }
  int64_t first_seen(int64_t query) const {
    return call_.window == 0 ? 0 : larger(0, position(query) + 1 - call_.window);
  }
  const T* block_of(const T* cache, int64_t place) const {
    return cache + table_[place / call_.block_size] * call_.block_size * head_dim_;
  }

  // Queries [query, query + kQueries) see the keys [start, start + kGroup).
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
    int64_t dim = 0;
    for (; dim + kVectorsTogether * kLanes <= head_dim_; dim += kVectorsTogether * kLanes) {
      add_values<kQueries, kVectorsTogether>(query, start, begin, end, dim, &scores[0][0], decay);
    }
    for (; dim < head_dim_; dim += kLanes) {
      add_values<kQueries, 1>(query, start, begin, end, dim, &scores[0][0], decay);
    }
  }

  // The vector of keys at `place`: the same cell of kLanes neighbouring tokens.
  NOVACRON_INLINE Words load_keys(const char* near, const char* far, int64_t offset) const {
    if (kLanes == 16 && far != nullptr) {
      uint32_t lanes[kLanes];
      memcpy(lanes, near + offset, sizeof lanes / 2);
      memcpy(lanes + kLanes / 2, far + offset, sizeof lanes / 2);
      return load_words(lanes);
    }
    return load_words(near + offset);
  }

  // Products of the queries with the keys from `place` on; those from `end` on are not meant.
  template <int kQueries>
  void add_scores(int64_t query, int64_t place, int64_t end, float* scores) const {
    const char* near[kVectorsTogether];
    const char* far[kVectorsTogether];
    for (int v = 0; v < kVectorsTogether; ++v) {
      const int64_t at = place + v * kLanes < end ? place + v * kLanes : place;
      near[v] = reinterpret_cast<const char*>(block_of(keys_, at)) + at % call_.block_size * 4;
      far[v] = nullptr;
      if (call_.block_size < kLanes) {  // a vector of 16 keys and blocks of 8
        const int64_t other = at + call_.block_size < end ? at + call_.block_size : at;
        far[v] = reinterpret_cast<const char*>(block_of(keys_, other));
      }
    }
    Floats sum[kQueries][kVectorsTogether] = {};
    const Other* queries = queries_.data() + query * cells_;
    for (int64_t cell = 0; cell < cells_; ++cell) {
      const int64_t offset = cell * call_.block_size * 4;
      for (int v = 0; v < kVectorsTogether; ++v) {
        const Words keys = load_keys(near[v], far[v], offset);
        for (int i = 0; i < kQueries; ++i) {
          sum[i][v] = Cells::add_product(sum[i][v], queries[i * cells_ + cell], keys);
        }
      }
    }
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectorsTogether; ++v) {
        store(scores + i * kGroup + v * kLanes, sum[i][v]);
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
    float& maximum = maxima_.data()[query];
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
    float& weight = weights_.data()[query];
    weight = weight * decay + sum_of_lanes(total);
    maximum = new_maximum;
    return decay;
  }

  template <int kQueries, int kVectors>
  void add_values(int64_t query, int64_t start, int64_t begin, int64_t end, int64_t dim,
                  const float* weights, const float* decay) {
    Floats sum[kQueries][kVectors];
    float* sums = sums_.data() + query * padded_dim_ + dim;
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        sum[i][v] = load(sums + i * padded_dim_ + v * kLanes) * decay[i];
      }
    }
    const int64_t count = smaller(kLanes, head_dim_ - dim);
    for (int64_t place = begin; place < end;) {
      const int64_t last = smaller(end, (place / call_.block_size + 1) * call_.block_size);
      const T* value = block_of(values_, place) + place % call_.block_size * head_dim_ + dim;
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
      for (int v = 0; v < kVectors; ++v) store(sums + i * padded_dim_ + v * kLanes, sum[i][v]);
    }
  }

  void finish() {
    for (int64_t query = 0; query < num_queries_; ++query) {
      const int64_t token = first_token_ + query / heads_;
      const int64_t head = first_head_ + query % heads_;
      T* out = static_cast<T*>(call_.out) + (token * call_.num_heads + head) * head_dim_;
      const float* sums = sums_.data() + query * padded_dim_;
      const float factor = 1.0f / weights_.data()[query];
      for_vectors(head_dim_, [&](int64_t dim, int64_t count) {
        store_up_to(out + dim, load(sums + dim) * factor, count);
      });
    }
  }

  const AttentionCall& call_;
  const int64_t* table_;
  const T* keys_;
  const T* values_;
  const int64_t head_dim_, padded_dim_, cells_;
  const int64_t heads_, first_head_, first_token_, first_position_, num_queries_;
  Scratch<Other> queries_;
  Scratch<float> sums_, maxima_, weights_;
};

template <class Cells>
void store_token(const AttentionCall& call, int64_t token) {
  using T = typename Cells::Element;
  const int64_t block = call.slots[token] / call.block_size;
  const int64_t offset = call.slots[token] % call.block_size;
  for (int64_t head = 0; head < call.num_kv_heads; ++head) {
    const int64_t start = (head * call.num_blocks + block) * call.block_size * call.head_dim;
    const T* key =
        static_cast<const T*>(call.key) + token * call.key_token_stride + head * call.key_head_stride;
    T* stored = static_cast<T*>(call.key_cache) + start + offset * Cells::kElements;
    for (int64_t dim = 0; dim < call.head_dim; dim += Cells::kElements) {
      memcpy(stored + dim * call.block_size, key + dim, Cells::kElements * sizeof(T));
    }
    const T* value = static_cast<const T*>(call.value) + token * call.value_token_stride +
                     head * call.value_head_stride;
    memcpy(static_cast<T*>(call.value_cache) + start + offset * call.head_dim, value,
           call.head_dim * sizeof(T));
  }
}

template <class Cells>
void attend_with(ThreadPool& pool, const AttentionCall& call) {
  constexpr int64_t kElementsWorthStoring = 16 * 1024;
  const int64_t per_token = 2 * call.num_kv_heads * call.head_dim;
  parallel(pool, call.num_tokens, divide_up(kElementsWorthStoring, per_token),
           [&](int64_t token, int64_t last) {
             for (; token < last; ++token) store_token<Cells>(call, token);
           });

  const int64_t heads = call.num_heads / call.num_kv_heads;
  const int64_t tile = larger(1, kQueriesPerTask / heads);
  Scratch<int64_t> first_tiles(call.num_rows + 1);  // of each row, in the numbering of tasks
  int64_t num_tiles = 0, keys = 0;
  for (int64_t row = 0; row < call.num_rows; ++row) {
    first_tiles.data()[row] = num_tiles;
    num_tiles += divide_up(call.rows[row * 3 + 2], tile);
    keys += call.rows[row * 3 + 2] * (call.rows[row * 3 + 1] + call.rows[row * 3 + 2]);
  }
  first_tiles.data()[call.num_rows] = num_tiles;
  const int64_t tasks = num_tiles * call.num_kv_heads;
  const int64_t worth_sharing = pool.is_awake() ? 64 * 1024 : 512 * 1024;
  const bool share = keys * call.num_heads * call.head_dim > worth_sharing;
  parallel(pool, tasks, share ? 1 : tasks, [&](int64_t task, int64_t last) {
    int64_t row = 0;
    for (; task < last; ++task) {
      const int64_t index = task / call.num_kv_heads;
      while (first_tiles.data()[row + 1] <= index) ++row;
      const int64_t first = (index - first_tiles.data()[row]) * tile;
      QueryTile<Cells>(call, row, task % call.num_kv_heads, first,
                       smaller(first + tile, call.rows[row * 3 + 2]))
          .run();
    }
  });
}

void attend(ThreadPool& pool, const AttentionCall& call) {
  if (call.type == kFloat32) {
    attend_with<FloatCells>(pool, call);
  } else {
    attend_with<BFloat16Cells>(pool, call);
  }
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
