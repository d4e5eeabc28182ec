#include "experts.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "collectives.h"
#include "scalar.h"

namespace novacron {
namespace {

constexpr int64_t kElementsWorthClaiming = 16 * 1024;

// A pair is a token and one of its experts. Pairs are numbered token after token, those of a token
// as the router ranks them; their rows lie expert after expert, so that each expert is one product.
struct Routing {
  explicit Routing(const ExpertsCall& call)
      : experts(call.rows * call.experts_per_token),
        shares(experts.size()),
        pairs(experts.size()),
        places(experts.size()),
        firsts(call.num_experts + 1) {}

  std::vector<int64_t> experts;  // of each pair
  std::vector<float> shares;     // of each pair in its token's sum
  std::vector<int64_t> pairs;    // of each row
  std::vector<int64_t> places;   // the row of each pair
  std::vector<int64_t> firsts;   // row of each expert, then their number
};

// Calls body(first, last) on the pool's threads, for some of `rows` of `size` elements at a time.
template <class Body>
void share_out(ThreadPool& pool, int64_t rows, int64_t size, Body body) {
  pool.run(
      rows, divide_up(kElementsWorthClaiming, size),
      [](void* argument, int64_t first, int64_t last) {
        (*static_cast<Body*>(argument))(first, last);
      },
      &body);
}

// The experts with the largest chances, the first of equals first.
template <class Element>
void choose_experts(const ExpertsCall& call, int64_t token, std::vector<float>& chances,
                    Routing* routing) {
  const Element* logits = static_cast<const Element*>(call.router_logits) + token * call.num_experts;
  float peak = -INFINITY;
  for (int64_t e = 0; e < call.num_experts; ++e) peak = std::max(peak, widened(logits + e));
  float total = 0.0f;
  for (int64_t e = 0; e < call.num_experts; ++e) {
    total += chances[e] = std::exp(widened(logits + e) - peak);
  }
  float chosen_total = 0.0f;
  const int64_t first = token * call.experts_per_token;
  for (int64_t pair = first; pair < first + call.experts_per_token; ++pair) {
    const int64_t best = std::max_element(chances.begin(), chances.end()) - chances.begin();
    routing->experts[pair] = best;
    chosen_total += routing->shares[pair] = chances[best] / total;
    chances[best] = -1.0f;
  }
  for (int64_t pair = first; pair < first + call.experts_per_token; ++pair) {
    Element share;
    narrow(call.renormalize ? routing->shares[pair] / chosen_total : routing->shares[pair], &share);
    routing->shares[pair] = widened(&share);
  }
}

template <class Element>
Routing route(ThreadPool& pool, const ExpertsCall& call) {
  Routing routing(call);
  share_out(pool, call.rows, call.num_experts * (call.experts_per_token + 8),
            [&](int64_t token, int64_t last) {
              std::vector<float> chances(call.num_experts);
              for (; token < last; ++token) choose_experts<Element>(call, token, chances, &routing);
            });
  for (int64_t expert : routing.experts) ++routing.firsts[expert + 1];
  for (int64_t e = 0; e < call.num_experts; ++e) routing.firsts[e + 1] += routing.firsts[e];
  std::vector<int64_t> next(routing.firsts.begin(), routing.firsts.end() - 1);
  for (size_t pair = 0; pair < routing.experts.size(); ++pair) {
    const int64_t place = next[routing.experts[pair]]++;
    routing.places[pair] = place;
    routing.pairs[place] = static_cast<int64_t>(pair);
  }
  return routing;
}

// Each expert's product with its rows of `x`, into the same rows of `out`.
void multiply_by_expert(Context& context, const ExpertsCall& call, const Routing& routing,
                        const LinearCall* products, const char* x, char* out) {
  const int64_t element_bytes = call.type == kBFloat16 ? 2 : 4;
  for (int64_t e = 0; e < call.num_experts; ++e) {
    LinearCall product = products[e];
    product.rows = routing.firsts[e + 1] - routing.firsts[e];
    if (product.rows == 0) continue;
    product.x = x + routing.firsts[e] * product.x_stride * element_bytes;
    const int64_t out_bytes = product.out_type == kBFloat16 ? 2 : 4;
    product.out = out + routing.firsts[e] * product.out_stride * out_bytes;
    context.level.linear(context.pool, product);
  }
}

// Sums in float32, in the router's order, and rounds once.
template <class Element>
void add_up(ThreadPool& pool, const ExpertsCall& call, const Routing& routing) {
  const Element* results = static_cast<const Element*>(call.rows_of_pairs);
  const Element* shared = static_cast<const Element*>(call.shared);
  const Element* shared_logits = static_cast<const Element*>(call.shared_logits);
  const Element* residual = static_cast<const Element*>(call.residual);
  const int64_t size = call.size;
  share_out(pool, call.rows, size * call.experts_per_token, [&](int64_t token, int64_t last) {
    std::vector<float> sum(size);
    for (; token < last; ++token) {
      std::fill(sum.begin(), sum.end(), 0.0f);
      const auto add = [&](const Element* from, float share) {
        for (int64_t i = 0; i < size; ++i) sum[i] += share * widened(from + i);
      };
      const int64_t first = token * call.experts_per_token;
      for (int64_t pair = first; pair < first + call.experts_per_token; ++pair) {
        add(results + routing.places[pair] * size, routing.shares[pair]);
      }
      if (shared != nullptr) {
        add(shared + token * size, 1.0f / (1.0f + std::exp(-widened(shared_logits + token))));
      }
      if (residual != nullptr) add(residual + token * size, 1.0f);
      Element* out = static_cast<Element*>(call.out) + token * size;
      for (int64_t i = 0; i < size; ++i) narrow(sum[i], out + i);
    }
  });
}

// What the ranks have made of each pair, rounded as one of them would have.
bool join_partials(Context& context, const ExpertsCall& call, int64_t num_pairs) {
  AddPartialsCall joined = *call.partials;
  joined.out = call.rows_of_pairs;
  joined.rows = num_pairs;
  return add_partials(context, joined);
}

template <class Element>
bool mix(Context& context, const ExpertsCall& call) {
  ThreadPool& pool = context.pool;
  const Routing routing = route<Element>(pool, call);
  const int64_t num_pairs = call.rows * call.experts_per_token;
  const int64_t row_bytes = call.size * sizeof(Element);
  const char* x = static_cast<const char*>(call.x);
  char* rows = static_cast<char*>(call.rows_of_pairs);
  share_out(pool, num_pairs, call.size, [&](int64_t row, int64_t last) {
    for (; row < last; ++row) {
      const int64_t token = routing.pairs[row] / call.experts_per_token;
      memcpy(rows + row * row_bytes, x + token * row_bytes, row_bytes);
    }
  });
  char* gate_up = static_cast<char*>(call.gate_up_of_pairs);
  char* activated = static_cast<char*>(call.activated_of_pairs);
  multiply_by_expert(context, call, routing, call.gate_up, rows, gate_up);
  context.level.gated(pool, {gate_up, activated, num_pairs, call.ffn_size, 2 * call.ffn_size,
                             call.type, call.activation});
  if (call.partials == nullptr) {
    multiply_by_expert(context, call, routing, call.down, activated, rows);
  } else {
    multiply_by_expert(context, call, routing, call.down, activated,
                       reinterpret_cast<char*>(call.own_partials));
    if (!join_partials(context, call, num_pairs)) return false;
  }
  add_up<Element>(pool, call, routing);
  return true;
}

}  // namespace

bool mix_experts(Context& context, const ExpertsCall& call) {
  return call.type == kBFloat16 ? mix<uint16_t>(context, call) : mix<float>(context, call);
}

}  // namespace novacron
