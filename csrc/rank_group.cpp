#include "rank_group.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <ctime>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

namespace novacron {
namespace {

using std::chrono::milliseconds;

// A rank that shares its core with the one it waits for must not keep it busy: so few checks, then
// the core is offered to others, then it sleeps.
constexpr int kChecks = 50;
constexpr int kYieldsPerClock = 16;
constexpr auto kYielding = milliseconds(2);
constexpr auto kSleep = milliseconds(10);
constexpr auto kMostCounted = milliseconds(50);  // of a sleep: longer, and we were stopped ourselves
constexpr int kLooks = 16;  // at what a late rank does, while patience runs out

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void sleep_on(std::atomic<uint32_t>* word, uint32_t expected) {
  const timespec most = {0, std::chrono::nanoseconds(kSleep).count()};
  syscall(SYS_futex, word, FUTEX_WAIT, expected, &most, nullptr, 0);
}

void count(std::atomic<uint64_t>& counter, uint64_t more) {
  counter.store(counter.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
}

void wake(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// proc(5): the state follows the name, which may itself hold brackets.
bool is_runnable(int tasks, const char* name) {
  char path[NAME_MAX + 8], line[256];
  snprintf(path, sizeof path, "%s/stat", name);
  const int file = openat(tasks, path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const ssize_t size = read(file, line, sizeof line - 1);
  close(file);
  if (size <= 0) return false;
  line[size] = 0;
  const char* end = strrchr(line, ')');
  return end != nullptr && end[1] == ' ' && end[2] == 'R';
}

// Whether a thread of the process runs, or would if it had a core.
bool wants_core(int process) {
  char path[32];
  snprintf(path, sizeof path, "/proc/%d/task", process);
  DIR* tasks = opendir(path);
  if (tasks == nullptr) return false;
  bool found = false;
  while (const dirent* task = readdir(tasks)) {
    if (task->d_name[0] != '.' && is_runnable(dirfd(tasks), task->d_name)) {
      found = true;
      break;
    }
  }
  closedir(tasks);
  return found;
}

}  // namespace

struct alignas(128) RankGroup::Header {
  std::atomic<uint32_t> is_lost;
};

// Of a rank: how often it was there, and how many sleep until it is there again. Only the rank itself
// writes the counters behind that.
struct alignas(128) RankGroup::Slot {
  std::atomic<uint32_t> turn;
  std::atomic<uint32_t> sleepers;
  std::atomic<int32_t> process;  // 0: has not joined yet
  std::atomic<uint64_t> meetings;
  std::atomic<uint64_t> bytes;
  std::atomic<uint64_t> waited_ns;
};

int64_t RankGroup::num_bytes(int size) {
  return static_cast<int64_t>(sizeof(Header) + size * sizeof(Slot));
}

RankGroup::RankGroup(void* memory, int rank, int size, double patience_s)
    : header_(static_cast<Header*>(memory)),
      slots_(reinterpret_cast<Slot*>(header_ + 1)),
      rank_(rank),
      size_(size),
      patience_(std::chrono::duration_cast<Clock::duration>(
          std::chrono::duration<double>(patience_s))),
      descriptors_(size, -1) {
  static_assert(std::atomic<uint32_t>::is_always_lock_free, "shared between processes");
  slots_[rank].process.store(getpid());
}

RankGroup::~RankGroup() {
  for (int descriptor : descriptors_) {
    if (descriptor >= 0) close(descriptor);
  }
}

bool RankGroup::wait(int64_t bytes) {
  if (loss_ != kNotLost) return false;
  // Turns of a group that was lost may be higher than those of one that begins anew.
  if (header_->is_lost.load(std::memory_order_relaxed) != 0) return lose(kGivenUp, rank_);
  Slot& own = slots_[rank_];
  const uint32_t turn = ++turn_;
  own.turn.store(turn);
  if (own.sleepers.load() != 0) wake(&own.turn);
  const auto before = Clock::now();
  for (int rank = 0; rank < size_; ++rank) {
    if (rank != rank_ && !wait_for(rank, turn)) return false;
  }
  const auto waited = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - before);
  count(own.waited_ns, waited.count());
  count(own.meetings, 1);
  count(own.bytes, bytes);
  return true;
}

Traffic RankGroup::traffic(int rank) const {
  const Slot& slot = slots_[rank];
  return {slot.meetings.load(), slot.bytes.load(), slot.waited_ns.load()};
}

void RankGroup::give_up() {
  header_->is_lost.store(1);
  for (int rank = 0; rank < size_; ++rank) wake(&slots_[rank].turn);
}

void RankGroup::begin_anew() {
  turn_ = 0;
  loss_ = kNotLost;
  lost_rank_ = -1;
  for (int& descriptor : descriptors_) {  // of processes that may be others now
    if (descriptor >= 0) close(descriptor);
    descriptor = -1;
  }
}

// Who ended in its sleep is still counted among the sleepers.
void RankGroup::reset() {
  for (int rank = 0; rank < size_; ++rank) {
    slots_[rank].turn.store(0);
    slots_[rank].sleepers.store(0);
  }
  header_->is_lost.store(0);
}

bool RankGroup::wait_for(int rank, uint32_t turn) {
  const Slot& slot = slots_[rank];
  const auto is_there = [&slot, turn] {
    return static_cast<int32_t>(slot.turn.load(std::memory_order_acquire) - turn) >= 0;
  };
  for (int check = 0; check < kChecks; ++check) {
    if (is_there()) return true;
    relax();
  }
  const auto end = Clock::now() + kYielding;
  do {
    for (int yield = 0; yield < kYieldsPerClock; ++yield) {
      if (is_there()) return true;
      sched_yield();
    }
  } while (Clock::now() < end);
  return sleep_until_there(rank, turn);
}

bool RankGroup::sleep_until_there(int rank, uint32_t turn) {
  Slot& slot = slots_[rank];
  Clock::duration waited{}, looked{};
  auto before = Clock::now();
  for (;;) {
    const uint32_t seen = slot.turn.load();
    if (static_cast<int32_t>(seen - turn) >= 0) return true;
    if (header_->is_lost.load() != 0) return lose(kGivenUp, rank);
    if (has_ended(rank)) return lose(kEnded, rank);
    if (waited - looked > patience_ / kLooks) {
      looked = waited;
      if (wants_core(slot.process.load())) waited = looked = {};  // slow, which is no hanging
    }
    if (waited > patience_) return lose(kLate, rank);
    slot.sleepers.fetch_add(1);
    sleep_on(&slot.turn, seen);
    slot.sleepers.fetch_sub(1);
    const auto now = Clock::now();
    waited += std::min<Clock::duration>(now - before, kMostCounted);
    before = now;
  }
}

// Also of one that nobody has waited for yet. Before it joins, only patience can run out.
bool RankGroup::has_ended(int rank) {
  const int process = slots_[rank].process.load();
  if (process == 0) return false;
  int& descriptor = descriptors_[rank];
  if (descriptor < 0) {
    descriptor = static_cast<int>(syscall(SYS_pidfd_open, process, 0));
    if (descriptor < 0) return (errno == ESRCH || kill(process, 0) != 0) && errno == ESRCH;
  }
  pollfd end = {descriptor, POLLIN, 0};
  return poll(&end, 1, 0) > 0;
}

bool RankGroup::lose(Loss loss, int rank) {
  loss_ = loss;
  lost_rank_ = rank;
  give_up();
  return false;
}

}  // namespace novacron
