// Needs the library of dependency.cpp.
namespace mergen::trial {

int neededByAnother();
[[gnu::used]] int callIt() {
    return neededByAnother();
}

}  // namespace mergen::trial
