// Processes of one host that compute a model together and meet after every part of a step.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

namespace novacron {

// Why a group cannot go on.
enum Loss : int32_t { kNotLost = 0, kEnded = 1, kLate = 2, kGivenUp = 3 };

// What a rank has exchanged since the group was made, whichever processes were that rank.
struct Traffic {
  uint64_t meetings;
  uint64_t bytes;      // that it gave the others
  uint64_t waited_ns;  // for the others
};

// A rank's part in a group. All ranks call `wait` equally often, each from one thread at a time. What
// a rank wrote before, to memory that they share, all others see afterwards. A group that has lost a
// rank stays lost until all ranks, one of them perhaps a new process, have begun anew.
class RankGroup {
 public:
  static int64_t num_bytes(int size);

  // `memory` is shared by the ranks, aligned to 128 bytes, and zero before the first of them joins.
  RankGroup(void* memory, int rank, int size, double patience_s);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  int size() const { return size_; }

  // `bytes`: what this rank gives the others to read. Returns when all ranks are there; false if one has ended, or hangs: it is not there, and
  // neither runs nor waits for a core, for as long as this process was awake and has patience for.
  bool wait(int64_t bytes);
  // Has every rank's `wait` return false.
  void give_up();
  // Forgets what this rank knows of meetings and of a loss. Once all ranks have, and none of them
  // waits, `reset` by one of them makes the group whole; before that, `wait` fails.
  void begin_anew();
  void reset();

  // Of any rank, from any thread; the three need not be of one moment.
  Traffic traffic(int rank) const;

  Loss loss() const { return loss_; }
  int lost_rank() const { return lost_rank_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Header;
  struct Slot;

  bool wait_for(int rank, uint32_t turn);
  bool sleep_until_there(int rank, uint32_t turn);
  bool has_ended(int rank);
  bool lose(Loss loss, int rank);

  Header* header_;
  Slot* slots_;
  int rank_, size_;
  Clock::duration patience_;
  uint32_t turn_ = 0;
  Loss loss_ = kNotLost;
  int lost_rank_ = -1;
  std::vector<int> descriptors_;  // of the other processes; -1: not opened, or cannot be
};

}  // namespace novacron
