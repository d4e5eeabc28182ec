// The C interface of the kernels: raw buffers in, raw buffers out.
//
// Every output element is reduced in an order that depends on the shape of its own reduction and
// on the level, never on the number of rows, on its neighbours or on the number of threads.
// Strides count elements. A kernel never keeps a pointer that it was given.
#pragma once

#include <cstdint>

#if defined(__GNUC__)
#define NOVACRON_API extern "C" __attribute__((visibility("default")))
#else
#define NOVACRON_API extern "C"
#endif

namespace novacron {

struct Context;  // a level and a thread pool
class RankGroup;  // processes that compute together: csrc/rank_group.h
struct Traffic;   // between them: there, too

enum DataType : int32_t { kFloat32 = 0, kBFloat16 = 1, kInt8 = 2, kInt4 = 3, kFloat8 = 4 };
// How the KV cache holds keys, or values: csrc/kernels/kv_formats.h. Blocks of formats differ in size.
enum KVFormat : int32_t {
  kKVFloat32 = 0,
  kKVBFloat16 = 1,
  kKVFloat16 = 2,
  kKVInt8 = 3,
  kKVFloat8 = 4,
  kKVInt4 = 5,
};
enum Activation : int32_t { kSilu = 0, kGeluTanh = 1, kGelu = 2 };
enum Function : int32_t { kScale = 0, kSoftcap = 1 };
enum AttentionPart : int32_t { kStore = 1, kAttend = 2 };
enum OperationKind : int32_t {
  kLinear = 0,
  kNorm = 1,
  kRotate = 2,
  kGated = 3,
  kAttention = 4,
  kLookup = 5,
  kMap = 6,
  kExperts = 7,
  kAddPartials = 8,
  kMeet = 9,
};

// Packs the weights [outputs][inputs] of `type`: as they are if `weight_type` is the same, or rounded
// to kInt8 or kInt4 with a scale for each `group` (32, 64 or 128) of an output's inputs. `packed` is
// aligned to 64 bytes. Weights that are rounded must be finite. kFloat8 (e4m3, with groups of 128) is
// packed by the caller, in the form that packing.h tells.
struct PackCall {
  const void* weights;
  void* packed;
  int64_t outputs, inputs, stride;
  int32_t type, weight_type, group;
};

// y[m][n] = sum_k x[m][k] * w[n][k] (+ bias[n]) (+ residual[m][n]); `residual` may be `out`.
// `weights` comes from novacron_pack, whose `weight_type` and `group` are repeated here; x, bias and
// residual are of `type`. With weights in kInt8 or kInt4, x is rounded to int8 with a scale for each
// `input_group` of a row: a group, or in kInt4 2 or 4 of them that are at most 128 inputs, if a segment
// has nothing but whole ones; those in kFloat8 are widened to `type`, and the sum of a group is scaled. The sum
// over k is made of `segments` sums (1, 2 or 4) of equal length that are added as a tree, so that ranks
// which hold some of them can agree.
struct LinearCall {
  const void* x;
  const void* weights;
  const void* bias;      // or null
  const void* residual;  // or null
  void* out;
  int64_t rows, outputs, inputs;
  int64_t x_stride, residual_stride, out_stride;
  int32_t type, out_type, weight_type, group, input_group, segments;
};

// `x` is [outer][inner][size] with strides, `out` and `residual` the same without gaps; the norm is
// added to `residual`, which may be `out`.
struct NormCall {
  const void* x;
  const void* weight;
  const void* residual;  // or null
  void* out;
  int64_t outer, inner, size;
  int64_t outer_stride, inner_stride;
  float epsilon;
  int32_t type, weight_type;
};

// Turns each pair (x[i], x[i + rotary_dim / 2]) of `x`, [tokens][heads][head_dim], by the angle of
// its token's position. `cosine` and `sine` are [positions][rotary_dim / 2]; `out` is without gaps.
// Dimensions past rotary_dim are copied.
struct RotateCall {
  const void* x;
  const void* cosine;
  const void* sine;
  const int64_t* positions;  // per token
  void* out;
  int64_t tokens, heads, head_dim, rotary_dim;
  int64_t token_stride, head_stride;
  int32_t type;
};

// out[r][i] = activation(x[r][i]) * x[r][size + i]
struct GatedCall {
  const void* x;
  void* out;
  int64_t rows, size, x_stride;
  int32_t type, activation;
};

// out[r] = table[ids[r] - first_id], of `type`: rows of a matrix [num_ids][size] without gaps, or of
// packed weights, as they were or as they were rounded. Where the table has no such row, out[r] stays
// as it is: another rank may have it.
struct LookupCall {
  const void* table;
  const int64_t* ids;
  void* out;
  int64_t rows, size, first_id, num_ids;
  int32_t type, weight_type, group, is_packed;
};

// x[r][i] = x[r][i] * operand, or operand * tanh(x[r][i] / operand).
struct MapCall {
  void* x;
  int64_t rows, size, stride;
  float operand;
  int32_t type, function;
};

// The cached keys, or values, of a layer: [key-value heads][blocks], by strides in bytes, of blocks in
// `format`, whose size novacron_kv_block_bytes tells; scales lie inside.
struct KVCache {
  void* blocks;
  int64_t head_stride, block_stride;
  int32_t format;
};

// What ranks that share no memory do instead of meeting in a group: the caller's own way of exchanging
// what belongs to so many rows. 0, or 1 if another rank is lost.
using Exchange = int32_t (*)(int64_t rows);

// When all ranks of `group` have got here, the sum over ranks of what each of them has written to
// `partials`, [ranks][rows][size] with rows that follow each other without gaps: the rest of LinearCall
// for a product whose inputs are spread over 1, 2 or 4 ranks, each with its share of the segments.
// bias, residual and out are of `type`. Where `exchange` is given, it has made `partials` the sum over
// ranks of other hosts when it returns, as of 1 rank, and there is no group.
struct AddPartialsCall {
  RankGroup* group;
  Exchange exchange;  // or null
  const float* partials;
  const void* bias;      // or null
  const void* residual;  // or null
  void* out;
  int64_t rows, size;
  int64_t rank_stride, residual_stride, out_stride;
  int32_t type, ranks;
};

// Returns when all ranks of `group` have got here, or `exchange` has returned, and has copied rows then,
// if `to` is not null.
struct MeetCall {
  RankGroup* group;
  Exchange exchange;  // or null
  const void* from;
  void* to;
  int64_t rows, row_bytes;
};

// out[r] = residual[r] + the sum of the experts that the router ranks first for x[r], each times its
// share, + shared[r] * sigmoid(shared_logits[r]). `gate_up` and `down` are the products of each
// expert but for x, out and rows: what is a pair's, that of a row with one of its experts, has room
// for rows * experts_per_token rows; all are without gaps and of `type`. If ranks hold a slice of each
// expert, `partials` tells how `down`, which gives sums in float32 then, becomes one; but for out and
// rows. `own_partials` is this rank's part of it.
struct ExpertsCall {
  const void* x;
  const void* router_logits;  // [rows][num_experts]
  const LinearCall* gate_up;
  const LinearCall* down;
  const void* shared;         // or null
  const void* shared_logits;  // [rows], with shared
  const void* residual;       // or null
  void* out;
  void* rows_of_pairs;       // [..][size]
  void* gate_up_of_pairs;    // [..][2 * ffn_size]
  void* activated_of_pairs;  // [..][ffn_size]
  const AddPartialsCall* partials;  // or null
  float* own_partials;
  int64_t rows, size, ffn_size, num_experts, experts_per_token;
  int32_t type, activation, renormalize;
};

// Stores the step's keys and values in the cache, then attends; or one of the two, where ranks that
// have some tokens of the step each meet in between. A row is a request's part of the step: {first
// token, position of that token, number of tokens}.
struct AttentionCall {
  const void* query;
  const void* key;
  const void* value;
  void* out;  // [tokens][heads][head_dim] without gaps
  const int64_t* rows;
  const int64_t* block_tables;
  const int64_t* slots;  // per token: block * block_size + offset
  KVCache key_cache, value_cache;
  int64_t num_rows, num_tokens, num_heads, num_kv_heads, head_dim;
  int64_t block_size, table_stride;
  int64_t query_token_stride, query_head_stride;
  int64_t key_token_stride, key_head_stride;
  int64_t value_token_stride, value_head_stride;
  int64_t window;  // tokens that a token sees, itself included; 0: all
  float scale, softcap;  // softcap 0: none
  int32_t type;          // of query, key, value and out
  int32_t parts;         // AttentionPart: one of them, or both
};

// How a token is chosen from a row of logits, as in SamplingParams; temperature 0: the largest.
struct SampleRow {
  double temperature, top_p, min_p;
  int64_t top_k;  // 0 or less: all
  uint64_t seed, position;
};

// `logits` is [num_rows][vocab_size]. A token means nothing where the peak, the largest logit of
// its row, is not finite.
struct SampleCall {
  const float* logits;
  const SampleRow* rows;
  int64_t* tokens;
  float* peaks;
  int64_t num_rows, vocab_size, stride;
};

// Copies blocks, source by source to its target, which may be the same. With `sums`, not null, also
// XXH3-128 (big-endian) of each head, filled up with zeros to 1,024 bytes, and its copy: `heads` is
// [count][head_bytes], at most 1,024 each, `sums` [count][16], and no block is empty. `is_streamed`:
// these copies go past the processor's caches, as far as they are aligned for it; for what nobody
// reads soon. Computed by the calling thread alone.
struct CopyCall {
  const uint8_t* const* sources;
  uint8_t* const* targets;
  const uint8_t* heads;
  uint8_t* sums;
  int64_t count, block_bytes, head_bytes, is_streamed;
};

// Rounds a run of a block, the keys or the values of `num_parts` layers that lie `part_stride` bytes
// apart, to `code` (kKVInt8, kKVFloat8 or kKVInt4), or makes it of what it was rounded to. A part is
// [heads][dims / cell][tokens][cell] of `type`, one of the plain KVFormats; of values, cell = dims.
// `group` numbers share a scale: of keys the tokens of a dimension, of values dimensions of a token.
struct KVCodecCall {
  void* block;   // where the run begins
  void* scales;  // bfloat16, one for each group
  void* codes;
  float* errors;  // when encoding: of each part |x - y| / |x|, infinite if not all are finite
  int64_t num_parts, part_stride, num_heads, num_tokens, head_dim, cell, group;
  int32_t type, code, is_key, is_encoding;
};

// A recorded sequence of calls, run as often as wanted for steps of different sizes. `calls` holds
// the call structs, which are changed in place: of each sizing, the 8 bytes at `offset` become
// sizes[size] of the step. All pointers in them must stay valid.
struct Operation {
  int64_t kind;
  int64_t offset;  // of its struct in `calls`
};
struct Sizing {
  int64_t offset;
  int64_t size;
};
struct Program {
  void* calls;
  const Operation* operations;
  const Sizing* sizings;
  int64_t num_operations, num_sizings;
};

}  // namespace novacron

// Changes whenever a function or a struct above does: the caller checks it.
NOVACRON_API int32_t novacron_abi_version();
// The names of the levels this library and this machine have, best last, separated by spaces.
NOVACRON_API const char* novacron_levels();
// Null if there is no such level. The pool has num_threads - 1 threads of its own.
NOVACRON_API novacron::Context* novacron_open(const char* level, int32_t num_threads);
NOVACRON_API void novacron_close(novacron::Context* context);

NOVACRON_API int64_t novacron_packed_bytes(int32_t weight_type, int32_t group, int64_t outputs,
                                           int64_t inputs);
NOVACRON_API void novacron_pack(novacron::Context* context, const novacron::PackCall* call);
NOVACRON_API void novacron_linear(novacron::Context* context, const novacron::LinearCall* call);
NOVACRON_API void novacron_rms_norm(novacron::Context* context, const novacron::NormCall* call);
NOVACRON_API void novacron_rotate(novacron::Context* context, const novacron::RotateCall* call);
NOVACRON_API void novacron_gated(novacron::Context* context, const novacron::GatedCall* call);
// Bytes of one block of keys, or of values, of one key-value head.
NOVACRON_API int64_t novacron_kv_block_bytes(int32_t kv_format, int64_t block_size,
                                             int64_t head_dim);
NOVACRON_API void novacron_attend(novacron::Context* context,
                                  const novacron::AttentionCall* call);
NOVACRON_API void novacron_lookup(novacron::Context* context, const novacron::LookupCall* call);
NOVACRON_API void novacron_map(novacron::Context* context, const novacron::MapCall* call);
// 0, or 1 if there are ranks and their group is lost; so are those below.
NOVACRON_API int32_t novacron_mix_experts(novacron::Context* context,
                                          const novacron::ExpertsCall* call);
NOVACRON_API int32_t novacron_add_partials(novacron::Context* context,
                                           const novacron::AddPartialsCall* call);
NOVACRON_API int32_t novacron_meet(novacron::Context* context, const novacron::MeetCall* call);
NOVACRON_API void novacron_sample(novacron::Context* context, const novacron::SampleCall* call);
NOVACRON_API void novacron_copy_blocks(novacron::Context* context,
                                       const novacron::CopyCall* call);
// The operations in order, up to one that does not succeed. The pool's threads stay awake from the
// first to the last.
NOVACRON_API int32_t novacron_run(novacron::Context* context, const novacron::Program* program,
                                  const int64_t* sizes);

// A group of processes that share `memory`, of so many bytes, zero before the first joins.
NOVACRON_API int64_t novacron_group_bytes(int32_t size);
NOVACRON_API novacron::RankGroup* novacron_join(void* memory, int32_t rank, int32_t size,
                                                double patience_s);
// Others wait for this rank in vain afterwards.
NOVACRON_API void novacron_leave(novacron::RankGroup* group);
NOVACRON_API void novacron_give_up(novacron::RankGroup* group);
NOVACRON_API void novacron_begin_anew(novacron::RankGroup* group);
NOVACRON_API void novacron_reset(novacron::RankGroup* group);
NOVACRON_API void novacron_traffic(const novacron::RankGroup* group, int32_t rank,
                                   novacron::Traffic* traffic);
// 0 while the group is whole, else a Loss, and the rank that was waited for.
NOVACRON_API int32_t novacron_loss(const novacron::RankGroup* group, int32_t* rank);

// On the calling thread; any number of them may do so at once.
NOVACRON_API void novacron_code_kv(novacron::Context* context, const novacron::KVCodecCall* call);
