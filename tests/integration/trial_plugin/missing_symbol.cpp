// Needs a function that nobody has. Bound lazily, such a library opens, and ends the process at the first call.
namespace mergen::trial {

void nobodyHasThisFunction();
[[gnu::used]] void callIt() {
    nobodyHasThisFunction();
}

}  // namespace mergen::trial
