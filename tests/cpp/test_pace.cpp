// How a thread waits for tokens, over a virtual clock: when it sees them, and how long it is awake.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <deque>
#include <span>
#include <vector>

#include "check.h"
#include "cuda/pace.h"

namespace {

using namespace std::chrono_literals;
using Time = quantloom::cuda::HostThread::Time;
using Duration = Time::duration;
using Steps = std::vector<Duration>;  // how long the device takes for each token

constexpr Duration call = 500ns;     // to ask the device about an event
constexpr Duration soon = 3 * call;  // to see that a mark has come, while looking

// What the thread and the device have in common.
struct Machine {
  Time now = Time{} + 1us;     // a machine just started: its clock is no period
  Duration late = 5us;         // a sleeper is woken,
  Duration every_tenth = 5us;  // and each tenth one
  Duration event_late = 30us;  // one whom an event wakes
  Duration slept{}, blocked{};
  int sleeps = 0, yields = 0, blocks = 0, synchronizations = 0;
};

struct VirtualThread {
  Machine* machine;
  Time now() const { return machine->now; }
  void yield() const {
    machine->now += 200ns;
    ++machine->yields;
  }
  void sleep_until(Time when) const {
    CHECK(when > machine->now);
    const Duration late = ++machine->sleeps % 10 == 0 ? machine->every_tenth : machine->late;
    const Time woken = std::max(machine->now, when) + late;
    machine->slept += woken - machine->now;
    machine->now = woken;
  }
};

struct VirtualMark {
  Machine* machine;
  Time comes;
  bool done() const {
    machine->now += call;
    return machine->now >= comes;
  }
  void synchronize() const {
    machine->now += call;
    ++machine->synchronizations;
    if (machine->now >= comes) return;
    ++machine->blocks;
    machine->blocked += comes + machine->event_late - machine->now;
    machine->now = comes + machine->event_late;
  }
};

struct Wait {
  Duration late;   // after the mark, or after the call where it had come before
  Duration awake;  // meanwhile
  bool slept, blocked;
};
using Waits = std::span<const Wait>;

// Takes tokens as a session does, with four steps given to the device ahead.
class Session {
 public:
  std::vector<Wait> take(const Steps& steps) { return take(steps, steps.size(), 0us); }

  // With a pause before token `paused`.
  std::vector<Wait> take(const Steps& steps, std::size_t paused, Duration pause) {
    std::deque<VirtualMark> marks;
    std::vector<Wait> waits;
    std::size_t given = 0;
    while (waits.size() < steps.size()) {
      for (; given < std::min(steps.size(), waits.size() + 4); ++given) {
        idle_ = std::max(idle_, machine.now) + steps[given];
        marks.push_back({&machine, idle_});
      }
      if (waits.size() == paused) machine.now += pause;
      waits.push_back(wait(marks.front()));
      marks.pop_front();
      machine.now += 10us;
    }
    return waits;
  }

  Wait wait(const VirtualMark& mark) {
    const Machine before = machine;
    pace_.wait(mark);
    CHECK(machine.now >= mark.comes);
    CHECK(machine.synchronizations == before.synchronizations + 1);  // where its error shows
    const Duration away = machine.slept - before.slept + machine.blocked - before.blocked;
    return {.late = machine.now - std::max(before.now, mark.comes),
            .awake = machine.now - before.now - away,
            .slept = machine.sleeps > before.sleeps,
            .blocked = machine.blocks > before.blocks};
  }

  Machine machine;

 private:
  quantloom::cuda::Pace<VirtualThread> pace_{VirtualThread{&machine}};
  Time idle_{};  // the device, from then on
};

Waits from(std::size_t first, Waits waits) { return waits.subspan(first); }

Duration latest(Waits waits) { return std::ranges::max(waits, {}, &Wait::late).late; }
Duration most_awake(Waits waits) { return std::ranges::max(waits, {}, &Wait::awake).awake; }
Duration least_awake(Waits waits) { return std::ranges::min(waits, {}, &Wait::awake).awake; }
auto slept(Waits waits) { return std::ranges::count(waits, true, &Wait::slept); }
auto blocked(Waits waits) { return std::ranges::count(waits, true, &Wait::blocked); }

Duration mean_awake(Waits waits) {
  Duration sum{};
  for (const Wait& wait : waits) sum += wait.awake;
  return sum / static_cast<Duration::rep>(waits.size());
}

Steps then(Steps steps, std::size_t count, Duration step) {
  steps.insert(steps.end(), count, step);
  return steps;
}

}  // namespace

TEST(steady_tokens_are_looked_for_shortly_before_they_come) {
  struct {
    Duration period, looks;  // a sixth or 150 us, whichever is more, but two ninths at most
  } cases[] = {{400us, 88us}, {810us, 150us}, {1500us, 250us}, {3ms, 500us}};
  for (const auto& [period, looks] : cases) {
    for (const Duration event_late : {30us, 150us}) {
      Session session;
      session.machine.event_late = event_late;
      const std::vector<Wait> waits = session.take(Steps(200, period));
      CHECK(blocked(waits) == 2 and waits[0].blocked and waits[1].blocked);  // while none is known
      CHECK(most_awake(Waits(waits).first(2)) <= soon);
      CHECK(latest(from(10, waits)) <= soon);
      const Waits settled = from(60, waits);
      CHECK(slept(settled) == std::ssize(settled));
      CHECK(most_awake(settled) <= looks);
      CHECK(least_awake(settled) >= looks - 15us);
      CHECK(mean_awake(settled) * 9 <= 2 * period);
      CHECK(session.machine.yields * 1us >= looks * std::ssize(settled));  // one a look
    }
  }
}

TEST(a_sleeper_woken_late_now_and_then_has_the_next_token_in_time) {
  for (const Duration period : {400us, 1000us, 3000us}) {
    Session session;
    session.machine.every_tenth = 300us;
    const std::vector<Wait> waits = session.take(Steps(200, period));
    CHECK(blocked(waits) == 2);
    const auto in_time = [](const Wait& wait) { return wait.late <= soon; };
    const auto late = std::ssize(waits) - 2 - std::ranges::count_if(from(2, waits), in_time);
    // A sixth of 3 ms is more than 0.3.
    CHECK(period == 3ms ? late == 0 : late == session.machine.sleeps / 10);
    CHECK(latest(waits) < 300us);
  }
}

TEST(a_sleeper_always_woken_late_sleeps_less) {
  Session session;
  session.machine.late = session.machine.every_tenth = 300us;
  const std::vector<Wait> waits = session.take(Steps(200, 1500us));
  CHECK(blocked(waits) == 2);
  CHECK(latest(from(4, waits)) <= 10us);
  CHECK(mean_awake(from(4, waits)) <= 50us);
}

TEST(tokens_after_a_long_prompt_are_not_slept_through) {
  Session session;
  const std::vector<Wait> waits = session.take(then(Steps(5, 50ms), 64, 3ms));
  CHECK(blocked(Waits(waits).first(6)) == 6 and slept(Waits(waits).first(6)) == 0);
  CHECK(latest(from(6, waits)) <= soon);
}

TEST(a_pace_that_has_quickened_is_learnt_anew) {
  Session session;
  const std::vector<Wait> waits = session.take(then(Steps(8, 8ms), 64, 1ms));
  // It sleeps twice, and finds the three tokens there that have come meanwhile.
  CHECK(slept(Waits(waits).subspan(8, 8)) == 2);
  CHECK(blocked(from(8, waits)) == 1 and waits[16].blocked);
  CHECK(latest(from(17, waits)) <= soon);
  // By less than a half: the token after the two has not come yet.
  Session other;
  const std::vector<Wait> more = other.take(then(Steps(30, 3ms), 60, 2200us));
  CHECK(slept(Waits(more).subspan(30, 3)) == 2 and more[32].blocked);
  CHECK(latest(from(32, more)) <= other.machine.event_late);
  CHECK(latest(from(32 + 12, more)) <= soon);
}

TEST(one_token_that_was_slept_through_does_not_end_the_pace) {
  Session session;
  session.take(Steps(60, 3ms));
  for (int i = 0; i < 3; ++i) {
    // Taken 0.55 ms late, a token makes the next one seem due so much later.
    const std::vector<Wait> waits = session.take(Steps(30, 3ms), 10, 3540us);
    CHECK(not waits[10].slept and waits[11].slept);
    CHECK(waits[11].late > soon and waits[11].late < 100us);
    CHECK(waits[12].slept and waits[12].late <= soon);
    CHECK(latest(from(12, waits)) <= soon);
  }
}

TEST(slow_tokens_leave_those_after_them_in_time) {
  Steps steps(200, 3ms);
  for (std::size_t i = 9; i < steps.size(); i += 5) steps[i] = 6ms;
  Session session;
  const std::vector<Wait> waits = session.take(steps);
  for (std::size_t i = 2; i < steps.size(); ++i) {
    CHECK(steps[i] == 6ms ? waits[i].blocked : waits[i].late <= soon);
  }
}

TEST(a_pace_that_slows_is_followed) {
  Session session;
  const std::vector<Wait> waits = session.take(then(Steps(30, 1ms), 64, 3ms));
  CHECK(blocked(from(2, waits)) <= 12);
  CHECK(most_awake(waits) <= 1ms);  // a third of a period at most, then the event has to wake it
  CHECK(latest(from(30 + 12, waits)) <= soon);
  CHECK(most_awake(from(30 + 55, waits)) <= 510us);
  // Beyond four times the period it is as after a pause.
  Session other;
  const std::vector<Wait> more = other.take(then(Steps(30, 1ms), 20, 6ms));
  CHECK(blocked(from(2, more)) == 2);
  CHECK(latest(from(32, more)) <= soon);
}

TEST(a_pause_of_the_caller_is_no_period) {
  // The device has nothing to do meanwhile, and the first token after it comes as usual.
  Session session;
  CHECK(blocked(session.take(Steps(30, 1500us))) == 2);
  for (const Duration pause : {8ms, 100ms}) {
    session.machine.now += pause;
    const std::vector<Wait> waits = session.take(Steps(30, 1500us));
    CHECK(blocked(waits) == 2 and waits[0].blocked and waits[1].blocked);
    CHECK(most_awake(waits) <= 510us);
    CHECK(latest(from(2, waits)) <= soon);
  }
}

TEST(marks_that_have_come_cost_no_wait_and_set_no_period) {
  for (const Duration pause : {8ms, 100ms}) {
    Session session;
    const std::vector<Wait> waits = session.take(Steps(60, 1500us), 30, pause);
    const Waits come = Waits(waits).subspan(30, 4);
    CHECK(latest(come) <= soon);
    CHECK(slept(come) == 0 and blocked(come) == 0);
    CHECK(blocked(waits) == 2);
    CHECK(latest(from(34, waits)) <= soon);
    CHECK(slept(from(34, waits)) == 60 - 34);
  }
  Session session;
  for (int i = 0; i < 10; ++i) {
    const Wait wait = session.wait({&session.machine, session.machine.now - 1ms});
    CHECK(wait.late <= soon and not wait.slept and not wait.blocked);
  }
}

int main() { return quantloom::check::run_all(); }
