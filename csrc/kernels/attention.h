// Attention over paged blocks, for any mix of prompt chunks and decodes.
//
// A query (one head of one token) goes over the keys that it may see in groups of 64 positions, with
// an online softmax (2205.14135) from group to group. Sixteen groups, counted from the start of the
// sequence, are a segment; segments are computed apart and folded in their order, so that several
// threads can share a long sequence. Queries of one task share what is loaded; what a query computes
// depends on its position and window alone.
//
// Keys and values may be of different formats: scores are left between the two in floats, so what is
// compiled is one pass per format of keys and one per format of values, not one per pair.
#pragma once

#include <cmath>

#include "key_pass.h"
#include "value_pass.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int64_t kSegment = 16 * kGroup;  // keys
constexpr int kQueriesPerTask = 32;
constexpr int64_t kTasksPerThread = 4;  // below this, segments become tasks of their own

// What the formats of a call decide.
struct Formats {
  const KeyFormat& keys;
  const ValueFormat& values;
  const int64_t padded_dim;  // a multiple of kLanes that holds all dimensions of a value

  explicit Formats(const AttentionCall& call)
      : keys(key_format(call.key_cache.format)),
        values(value_format(call.value_cache.format)),
        padded_dim(
            divide_up(kv_padded_dims(call.value_cache.format, call.head_dim), kLanes) * kLanes) {}
};

class QueryTile {
 public:
  QueryTile(const Formats& formats, const Tile& tile)
      : call_(tile.call),
        tile_(tile),
        num_queries_(tile.num_queries),
        padded_dim_(formats.padded_dim),
        keys_(formats.keys, tile_),
        values_(formats.values, tile_) {}

  // What the queries see in all segments, written out. Both arguments are memory for softmaxes.
  void attend_all(float* total, float* part) {
    const Softmaxes all(total, padded_dim_);
    all.clear(num_queries_);
    const int64_t last = tile_.last_position() / kSegment;
    for (int64_t segment = tile_.first_seen(0) / kSegment; segment <= last; ++segment) {
      attend(segment, part);
      all.fold(softmaxes_, num_queries_);
    }
    write(all);
  }

  // What the queries see in one segment.
  void attend(int64_t segment, float* part) {
    softmaxes_ = Softmaxes(part, padded_dim_);
    softmaxes_.clear(num_queries_);
    const int64_t begin = larger(segment * kSegment, tile_.first_seen(0) / kGroup * kGroup);
    const int64_t end = smaller((segment + 1) * kSegment, tile_.last_position() + 1);
    if (begin >= end) return;
    if (!is_prepared_) keys_.prepare();
    is_prepared_ = true;
    for (int64_t start = begin; start < end; start += kGroup) {
      const int64_t next = start + kGroup, after = smaller(next + kGroup, end);
      keys_.keys.prefetch(next, after);
      const int64_t first = smaller(kTogether, num_queries_);
      step(0, first, start);
      values_.values.prefetch(next, after);
      for (int64_t query = first; query < num_queries_; query += kTogether) {
        step(query, smaller(kTogether, num_queries_ - query), start);
      }
    }
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
  void write(const Softmaxes& total) const {
    for (int64_t query = 0; query < num_queries_; ++query) {
      const int64_t row = tile_.token(query) * call_.num_heads + tile_.head(query);
      const int64_t at = row * call_.head_dim;
      const float factor = 1.0f / total.weight(query);
      for_vectors(call_.head_dim, [&](int64_t dim, int64_t count) {
        const Floats seen = load(total.sums(query) + dim) * factor;
        if (call_.type == kFloat32) {
          store_up_to(static_cast<float*>(call_.out) + at + dim, seen, count);
        } else {
          store_up_to(static_cast<BFloat16*>(call_.out) + at + dim, seen, count);
        }
      });
    }
  }

  // Some queries see the keys [start, start + kGroup).
  void step(int64_t query, int64_t count, int64_t start) {
    const int64_t begin = larger(start, tile_.first_seen(query));
    const int64_t end = smaller(start + kGroup, tile_.position(query + count - 1) + 1);
    if (begin >= end) return;
    alignas(64) float scores[kTogether * kGroup];
    float decay[kTogether];
    keys_.score(query, count, start, end, scores);
    soften(query, count, start, scores, decay);
    values_.add(softmaxes_, {query, start, begin, end, scores, decay}, count);
  }

  // The keys [low, high) of a group: those that a query sees.
  struct Sight {
    int32_t low, high;

    bool is_empty() const { return low >= high; }
    bool is_whole() const { return low == 0 && high == kGroup; }
    NOVACRON_INLINE Ints lanes(int vector) const {
      Ints lane;
      for (int i = 0; i < kLanes; ++i) lane[i] = i;
      lane += vector * kLanes;
      return (lane >= low) & (lane < high);
    }
  };
  Sight sight_of(int64_t query, int64_t start) const {
    const int64_t low = tile_.first_seen(query) - start, high = tile_.position(query) + 1 - start;
    return {static_cast<int32_t>(smaller(larger(low, 0), kGroup)),
            static_cast<int32_t>(smaller(larger(high, 0), kGroup))};
  }

  // Turns scores into weights, zero where a query may not look. `decay` becomes the factors that
  // the sums so far shrink by. What takes turns here has to wait for itself, not for its neighbours.
  void soften(int64_t query, int64_t count, int64_t start, float* scores, float* decay) {
    Sight sights[kTogether];
    alignas(64) float maxima[kTogether], falls[kLanes] = {};
    for (int64_t i = 0; i < count; ++i) {
      sights[i] = sight_of(query + i, start);
      maxima[i] = max_of_lanes(finish_scores(sights[i], scores + i * kGroup));
    }
    for (int64_t i = 0; i < count; ++i) {
      if (sights[i].is_empty()) continue;
      float& maximum = softmaxes_.maximum(query + i);
      const float new_maximum = maximum > maxima[i] ? maximum : maxima[i];
      falls[i] = maximum - new_maximum;
      maximum = new_maximum;
    }
    const Floats decays = exponential(load(falls));
    for (int64_t i = 0; i < count; ++i) {
      decay[i] = decays[i];
      const Floats total =
          weigh(sights[i], softmaxes_.maximum(query + i), scores + i * kGroup);
      float& weight = softmaxes_.weight(query + i);
      weight = weight * decay[i] + sum_of_lanes(total);
    }
  }

  // Scales and caps; what is not seen is -infinity. Returns the largest of each lane.
  NOVACRON_INLINE Floats finish_scores(const Sight& sight, float* scores) const {
    Floats highest = broadcast(-INFINITY);
    for (int v = 0; v < kGroupVectors; ++v) {
      Floats score = load(scores + v * kLanes) * call_.scale;
      if (call_.softcap != 0.0f) {
        score = hyperbolic_tangent(score / call_.softcap) * call_.softcap;
      }
      if (!sight.is_whole()) score = choose(sight.lanes(v), score, broadcast(-INFINITY));
      store(scores + v * kLanes, score);
      highest = larger_of(highest, score);
    }
    return highest;
  }

  // Returns the sum of weights of each lane.
  NOVACRON_INLINE Floats weigh(const Sight& sight, float maximum, float* scores) const {
    Floats total = {};
    for (int v = 0; v < kGroupVectors; ++v) {
      Floats weight = exponential(load(scores + v * kLanes) - maximum);
      if (!sight.is_whole()) weight = choose(sight.lanes(v), weight, Floats{});
      store(scores + v * kLanes, weight);
      total += weight;
    }
    return total;
  }

  const AttentionCall& call_;
  const Tile tile_;
  const int64_t num_queries_, padded_dim_;
  KeyPass keys_;
  const ValuePass values_;
  bool is_prepared_ = false;
  Softmaxes softmaxes_{nullptr, 0};  // of the segment at hand
};

void store_step(ThreadPool& pool, const AttentionCall& call, const Formats& formats) {
  constexpr int64_t kElementsWorthStoring = 16 * 1024;
  const int64_t per_token = 2 * call.num_kv_heads * call.head_dim;
  parallel(pool, call.num_tokens, divide_up(kElementsWorthStoring, per_token),
           [&](int64_t token, int64_t last) {
             formats.keys.store_tokens(call, token, last);
             formats.values.store_tokens(call, token, last);
           });
}

void attend(ThreadPool& pool, const AttentionCall& call) {
  const Formats formats(call);
  if ((call.parts & kStore) != 0) store_step(pool, call, formats);
  if ((call.parts & kAttend) == 0) return;

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
    return Tile(call, *row, task % call.num_kv_heads, first, last);
  };

  const int64_t tasks = num_tiles * call.num_kv_heads;
  const int64_t floats = Softmaxes::floats_for(
      tile_tokens * (call.num_heads / call.num_kv_heads), formats.padded_dim);
  const int64_t worth_sharing = pool.is_awake() ? 64 * 1024 : 512 * 1024;
  const bool share = keys * call.num_heads * call.head_dim > worth_sharing;
  if (!share || tasks >= kTasksPerThread * pool.num_threads() || longest <= kSegment) {
    parallel(pool, tasks, share ? 1 : tasks, [&](int64_t task, int64_t last) {
      Scratch<float> total(floats), part(floats);
      for (int64_t row = 0; task < last; ++task) {
        QueryTile(formats, tile_of(task, &row)).attend_all(total.data(), part.data());
      }
    });
    return;
  }
  // A few long tiles: their segments are shared out, then folded.
  const int64_t segments = divide_up(longest, kSegment);
  Scratch<float> parts(tasks * segments * floats);
  parallel(pool, tasks * segments, 1, [&](int64_t index, int64_t last) {
    for (int64_t row = 0; index < last; ++index) {
      QueryTile(formats, tile_of(index / segments, &row))
          .attend(index % segments, parts.data() + index * floats);
    }
  });
  for (int64_t task = 0, row = 0; task < tasks; ++task) {
    QueryTile(formats, tile_of(task, &row))
        .finish(parts.data() + task * segments * floats, segments, floats);
  }
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
