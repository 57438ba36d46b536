// Prompt lookup against a search through the whole sequence.
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "generate/ngram.h"

namespace {

using quantloom::generate::NgramIndex;
using Tokens = std::vector<std::int32_t>;

Tokens searched(const Tokens& tokens, std::size_t count) {
  const std::size_t size = tokens.size();
  for (std::size_t n = NgramIndex::longest; n >= NgramIndex::shortest; --n) {
    if (size <= n) continue;
    for (std::size_t from = size - 1; from >= n; --from) {
      bool same = true;
      for (std::size_t i = 0; i < n; ++i) {
        same = same and tokens[from - n + i] == tokens[size - n + i];
      }
      if (not same) continue;
      Tokens text(tokens.begin() + static_cast<std::ptrdiff_t>(from), tokens.end());
      for (std::size_t i = 0; text.size() < count; ++i) text.push_back(text[i]);
      text.resize(count);
      return text;
    }
  }
  return {};
}

}  // namespace

TEST(the_last_earlier_occurrence_is_continued) {
  CHECK(NgramIndex({}).draft(3).empty());
  CHECK(NgramIndex(Tokens{1, 2, 3}).draft(3).empty());
  CHECK((NgramIndex(Tokens{1, 2, 3, 1, 2}).draft(2) == Tokens{3, 1}));
  CHECK((NgramIndex(Tokens{5, 1, 2, 1, 2}).draft(5) == Tokens{1, 2, 1, 2, 1}));
  CHECK((NgramIndex(Tokens{7, 7, 7}).draft(4) == Tokens{7, 7, 7, 7}));
  CHECK((NgramIndex(Tokens{1, 2, 8, 1, 2, 9, 1, 2}).draft(1) == Tokens{9}));
  CHECK(NgramIndex(Tokens{1, 2, 8, 1, 2}).draft(0).empty());
}

TEST(random_sequences_give_what_a_search_gives) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 200; ++trial) {
    std::uniform_int_distribution<std::int32_t> token(0, 1 + trial % 9);
    Tokens tokens;
    NgramIndex index(tokens);
    for (int step = 0; step < 60; ++step) {
      tokens.push_back(token(random));
      index.append(tokens.back());
      CHECK(index.draft(6) == searched(tokens, 6));
    }
  }
}

int main() { return quantloom::check::run_all(); }
