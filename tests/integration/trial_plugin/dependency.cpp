// The library that another one needs and that will not be found.
namespace mergen::trial {

__attribute__((visibility("default"))) int neededByAnother() {
    return 1;
}

}  // namespace mergen::trial
