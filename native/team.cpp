#include "team.h"

#include <chrono>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace qwen_aio {
namespace {

constexpr int BARRIER_MICROSECONDS = 100;  // others are about to arrive, if they have a core
constexpr int START_MICROSECONDS = 100;    // the next product often follows at once
constexpr int GLANCES = 32;                // between two looks at the clock

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#endif
}

}  // namespace

void Signal::raise() {
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (num_asleep_.load(std::memory_order_seq_cst) > 0) {
    mutex_.lock();  // who is about to sleep sleeps now, and hears of it
    mutex_.unlock();
    woken_.notify_all();
  }
}

void Signal::wait_while(std::uint32_t value, int microseconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  do {
    for (int glance = 0; glance < GLANCES; ++glance) {
      if (this->value() != value) return;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  std::unique_lock<std::mutex> lock(mutex_);
  num_asleep_.fetch_add(1, std::memory_order_seq_cst);
  woken_.wait(lock, [&] { return value_.load(std::memory_order_seq_cst) != value; });
  num_asleep_.fetch_sub(1, std::memory_order_seq_cst);
}

Team::Team(int size) : size_(size) {
  try {
    for (int thread = 1; thread < size; ++thread) helpers_.emplace_back([this, thread] { serve(thread); });
  } catch (...) {
    end();  // a thread that is not joined would end the process
    throw;
  }
}

Team::~Team() { end(); }

void Team::run(const std::function<void(int)>& work) {
  work_ = &work;
  if (size_ > 1) {
    leave_the_callers_core();
    started_.raise();
  }
  work(0);
  barrier();
}

void Team::barrier() {
  if (size_ == 1) return;
  const std::uint32_t before = arrived_.value();
  if (num_arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    num_arrived_.store(0, std::memory_order_relaxed);
    arrived_.raise();
  } else {
    arrived_.wait_while(before, BARRIER_MICROSECONDS);
  }
}

// Linux likes to wake a thread where its waker runs. There the two take turns, each spinning until the
// other gets the core: with a busy program on one of two cores, a step of one row took 45 ms instead of 29.
void Team::leave_the_callers_core() {
#if defined(__linux__)
  const int core = sched_getcpu();
  cpu_set_t cores;
  if (core < 0 || core == callers_core_ || sched_getaffinity(0, sizeof cores, &cores) != 0) return;
  callers_core_ = core;
  if (CPU_COUNT(&cores) > 1) CPU_CLR(core, &cores);
  for (auto& helper : helpers_) pthread_setaffinity_np(helper.native_handle(), sizeof cores, &cores);
#endif
}

void Team::serve(int thread) {
  for (std::uint32_t seen = 0;; ++seen) {
    started_.wait_while(seen, START_MICROSECONDS);
    if (is_ending_) return;
    (*work_)(thread);
    barrier();
  }
}

void Team::end() {
  is_ending_ = true;
  started_.raise();
  for (auto& helper : helpers_) helper.join();
}

void Tasks::reset(int count) {
  const std::int64_t size = static_cast<std::int64_t>(shares_.size());
  for (int share = 0; share < size; ++share) {
    shares_[share].next.store(static_cast<int>(count * share / size), std::memory_order_relaxed);
    shares_[share].end = static_cast<int>(count * (share + 1) / size);
  }
}

int Tasks::next(int thread) {
  const int size = static_cast<int>(shares_.size());
  for (int i = 0; i < size; ++i) {
    Share& share = shares_[(thread + i) % size];
    if (share.next.load(std::memory_order_relaxed) >= share.end) continue;
    const int task = share.next.fetch_add(1, std::memory_order_relaxed);
    if (task < share.end) return task;
  }
  return -1;
}

}  // namespace qwen_aio
