// Chooses a token of each row of logits, by the rules of src/novacron/runner/sampler.py.
//
// Weights are integers, so sums of them are exact in any order. Where only a few of many values
// count (top-k, top-p), one pass sorts them into buckets by their leading bits, and only the bucket
// that the border runs through is looked at closely.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <vector>

#include "context.h"

namespace novacron {
namespace {

constexpr int64_t kLargestWeight = int64_t{1} << 44;

uint64_t mix(uint64_t value) {  // the output function of SplitMix64
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// In [0, 1); depends on nothing but its arguments.
double uniform(uint64_t seed, uint64_t position) {
  const uint64_t bits = mix(mix(seed) + (position + 1) * 0x9e3779b97f4a7c15);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

// Orders as the floats do, -0 and 0 being equal.
uint32_t ordered_bits(float x) {
  x += 0.0f;
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}

struct Kept {
  std::vector<int64_t> places;
  std::vector<float> values;
};

// The k largest values, and all that equal the last of them, in the order of their places.
Kept keep_largest(const float* x, int64_t size, int64_t k) {
  constexpr int kDroppedBits = 20;
  std::vector<uint32_t> counts(1 << (32 - kDroppedBits));
  for (int64_t i = 0; i < size; ++i) ++counts[ordered_bits(x[i]) >> kDroppedBits];
  uint32_t bucket = static_cast<uint32_t>(counts.size()) - 1;
  int64_t reached = counts[bucket];
  while (reached < k) reached += counts[--bucket];
  Kept near;
  for (int64_t i = 0; i < size; ++i) {
    if (ordered_bits(x[i]) >> kDroppedBits >= bucket) {
      near.places.push_back(i);
      near.values.push_back(x[i]);
    }
  }
  std::vector<float> values = near.values;
  std::nth_element(values.begin(), values.begin() + (k - 1), values.end(), std::greater<float>());
  const float last = values[k - 1];
  size_t num_kept = 0;
  for (size_t i = 0; i < near.values.size(); ++i) {
    if (near.values[i] < last) continue;
    near.places[num_kept] = near.places[i];
    near.values[num_kept++] = near.values[i];
  }
  near.places.resize(num_kept);
  near.values.resize(num_kept);
  return near;
}

// The smallest of the largest weights that together reach `wanted`, as few as do.
int64_t last_of_nucleus(const std::vector<int64_t>& weights, double wanted) {
  constexpr int kDroppedBits = 47;  // of a double: 5 bits of its fraction are left
  constexpr uint64_t kFirst = uint64_t{1023} << (52 - kDroppedBits);
  const auto bucket_of = [](int64_t weight) {
    const double value = static_cast<double>(weight);
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits >> kDroppedBits) - kFirst;
  };
  std::vector<int64_t> sums(bucket_of(kLargestWeight) + 1);
  for (const int64_t weight : weights) {
    if (weight > 0) sums[bucket_of(weight)] += weight;
  }
  size_t bucket = sums.size() - 1;
  int64_t before = 0;
  for (; bucket > 0 && static_cast<double>(before + sums[bucket]) < wanted; --bucket) {
    before += sums[bucket];
  }
  std::vector<int64_t> near;
  for (const int64_t weight : weights) {
    if (weight > 0 && bucket_of(weight) == bucket) near.push_back(weight);
  }
  std::sort(near.begin(), near.end(), std::greater<int64_t>());
  int64_t last = 0;
  for (const int64_t weight : near) {
    if (static_cast<double>(before) >= wanted) break;
    last = weight;
    before += weight;
  }
  return last;
}

void drop_below(std::vector<int64_t>& weights, int64_t floor) {
  for (int64_t& weight : weights) weight = weight < floor ? 0 : weight;
}

// The place where the running sum passes a random part of the total.
int64_t draw(const std::vector<int64_t>& weights, double part) {
  const int64_t total = std::accumulate(weights.begin(), weights.end(), int64_t{0});
  // The product may be rounded up to the total.
  const int64_t target =
      std::min(static_cast<int64_t>(static_cast<double>(total) * part), total - 1);
  int64_t sum = 0, place = 0;
  while ((sum += weights[place]) <= target) ++place;
  return place;
}

int64_t choose(const Level& level, const float* x, int64_t size, float peak,
               const SampleRow& row) {
  Kept kept;  // empty: all
  if (row.top_k > 0 && row.top_k < size) {
    kept = keep_largest(x, size, row.top_k);
    x = kept.values.data();
    size = static_cast<int64_t>(kept.values.size());
  }
  std::vector<int64_t> weights(size);
  level.find_weights(x, size, peak, row.temperature, weights.data());
  if (row.top_p < 1.0) {
    const int64_t total = std::accumulate(weights.begin(), weights.end(), int64_t{0});
    drop_below(weights, last_of_nucleus(weights, static_cast<double>(total) * row.top_p));
  }
  if (row.min_p > 0.0) {
    drop_below(weights, static_cast<int64_t>(std::ceil(row.min_p * kLargestWeight)));
  }
  const int64_t place = draw(weights, uniform(row.seed, row.position));
  return kept.places.empty() ? place : kept.places[place];
}

struct SampleJob {
  const Level& level;
  const SampleCall& call;
};

void sample_rows(void* argument, int64_t first, int64_t last) {
  const SampleJob& job = *static_cast<const SampleJob*>(argument);
  const SampleCall& call = job.call;
  for (int64_t row = first; row < last; ++row) {
    const float* x = call.logits + row * call.stride;
    const Peak peak = job.level.find_peak(x, call.vocab_size);
    call.peaks[row] = peak.value;
    call.tokens[row] = peak.place;
    if (call.rows[row].temperature > 0.0 && std::isfinite(peak.value)) {
      call.tokens[row] = choose(job.level, x, call.vocab_size, peak.value, call.rows[row]);
    }
  }
}

}  // namespace
}  // namespace novacron

void novacron_sample(novacron::Context* context, const novacron::SampleCall* call) {
  constexpr int64_t kLogitsWorthWaking = 64 * 1024;  // that are drawn from
  int64_t num_drawn_from = 0;
  for (int64_t row = 0; row < call->num_rows; ++row) {
    if (call->rows[row].temperature > 0.0) num_drawn_from += call->vocab_size;
  }
  novacron::SampleJob job = {context->level, *call};
  context->pool.run(call->num_rows, num_drawn_from < kLogitsWorthWaking ? call->num_rows : 1,
                    novacron::sample_rows, &job);
}
