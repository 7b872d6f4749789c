// One call of a module: what its launches take is read from a file of 8-byte words, and what they have written goes to another.
#pragma once

#include "cuda.hpp"
#include <unistd.h>

namespace emulated {

class Call {
public:
    Call(const char* input, const char* output) : input(std::fopen(input, "rb")), output(std::fopen(output, "wb")) {
        if (this->input == nullptr || this->output == nullptr) fail("a file cannot be opened", __LINE__);
        alarm(300);  // seconds after which a kernel that does not end is ended
    }

    uint64_t word() {
        uint64_t x;
        if (std::fread(&x, 8, 1, input) != 1) fail("the input ends", __LINE__);
        return x;
    }

    // The parameter struct, of 8-byte fields: each a number, or memory that is filled (from the file, or with what nobody has
    // written) and perhaps kept.
    template <class Arguments>
    Arguments arguments() {
        static_assert(sizeof(Arguments) % 8 == 0);
        Arguments arguments;
        for (size_t field = 0; field < sizeof(Arguments) / 8; ++field) {
            uint64_t x = word();
            const Kind kind = static_cast<Kind>(x);
            x = word();
            if (kind != NUMBER) {
                auto& memory = *(memories.emplace_back(new std::vector<uint64_t>((x + 7) / 8, 0xa5a5a5a5a5a5a5a5)));
                if (kind == GIVEN)
                    for (size_t i = 0; i < (x + 7) / 8; ++i) memory[i] = word();
                if (kind == KEPT) kept.push_back({memory.data(), x});
                x = reinterpret_cast<uintptr_t>(memory.data());
            }
            std::memcpy(reinterpret_cast<char*>(&arguments) + 8 * field, &x, 8);
        }
        return arguments;
    }

    template <class Arguments>
    void launch(void (*entry)(Arguments), const std::remove_const_t<Arguments>& arguments) {
        const unsigned x = static_cast<unsigned>(word()), y = static_cast<unsigned>(word()), z = static_cast<unsigned>(word());
        const unsigned count = static_cast<unsigned>(word()), shared = static_cast<unsigned>(word());
        if (x > 0 && y > 0 && z > 0) emulated::launch(entry, {x, y, z}, count, shared, arguments);
    }

    void write() {
        for (const auto& [at, bytes] : kept)
            if (std::fwrite(at, 1, bytes, output) != bytes) fail("the output cannot be written", __LINE__);
        if (std::fclose(output) != 0) fail("the output cannot be written", __LINE__);
    }

private:
    enum Kind { NUMBER, GIVEN, SCRATCH, KEPT };
    std::FILE *input, *output;
    std::vector<std::unique_ptr<std::vector<uint64_t>>> memories;
    std::vector<std::pair<const void*, size_t>> kept;
};

}  // namespace emulated
