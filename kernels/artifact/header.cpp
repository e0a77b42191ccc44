#include "artifact/header.h"

#include "executor/program.h"

namespace autosparse {
namespace {

constexpr int kMostExtents = 8;

class Parser {
public:
    explicit Parser(std::string_view json) : json_(json) {}

    Header parse() {
        Header header;
        members([&](const std::string &name) {
            if (name == "__metadata__")
                read_metadata(header);
            else
                add(header.entries, name, read_entry());
        });
        skip_spaces();
        if (at_ != json_.size()) fail("nothing but spaces may follow the object");
        return header;
    }

private:
    [[noreturn]] void fail(const std::string &rule) const {
        throw Error(AS_BAD_FILE, "the header of an artifact must be a flat JSON object, but at byte " +
                                     std::to_string(at_) + " " + rule + "; the file is damaged");
    }

    void skip_spaces() {
        while (at_ < json_.size() &&
               (json_[at_] == ' ' || json_[at_] == '\n' || json_[at_] == '\r' || json_[at_] == '\t'))
            ++at_;
    }

    bool take(char wanted) {
        skip_spaces();
        if (at_ >= json_.size() || json_[at_] != wanted) return false;
        ++at_;
        return true;
    }

    void expect(char wanted) {
        if (!take(wanted)) fail(std::string("there must be a ") + wanted);
    }

    // An object, whose values `read` takes, given the name.
    template <class Read>
    void members(Read &&read) {
        expect('{');
        if (take('}')) return;
        do {
            const std::string name = text();
            expect(':');
            read(name);
        } while (take(','));
        expect('}');
    }

    template <class Value>
    void add(std::map<std::string, Value> &to, const std::string &name, Value value) {
        if (!to.emplace(name, std::move(value)).second) fail("the name " + name + " comes again");
    }

    void read_metadata(Header &header) {
        members([&](const std::string &name) {
            skip_spaces();
            const std::size_t place = at_ + 1;
            add(header.metadata, name, Text{text(), place});
        });
    }

    HeaderEntry read_entry() {
        HeaderEntry entry;
        int seen = 0;
        members([&](const std::string &name) {
            ++seen;
            if (name == "dtype") {
                entry.dtype = text();
            } else if (name == "shape") {
                entry.shape = integers();
            } else if (name == "data_offsets") {
                const std::vector<std::int64_t> offsets = integers();
                if (offsets.size() != 2) fail("data_offsets must be two numbers");
                entry.begin = offsets[0];
                entry.end = offsets[1];
            } else {
                fail("a tensor has no " + name);
            }
        });
        if (seen != 3) fail("a tensor must have dtype, shape and data_offsets");
        return entry;
    }

    std::vector<std::int64_t> integers() {
        std::vector<std::int64_t> found;
        expect('[');
        if (take(']')) return found;
        do {
            if (found.size() == kMostExtents) fail("a list may have 8 numbers at most");
            found.push_back(integer());
        } while (take(','));
        expect(']');
        return found;
    }

    std::int64_t integer() {
        skip_spaces();
        const std::size_t first = at_;
        std::int64_t value = 0;
        for (; at_ < json_.size() && json_[at_] >= '0' && json_[at_] <= '9'; ++at_) {
            if (at_ - first == 15) fail("a number may have 15 digits at most");
            value = value * 10 + (json_[at_] - '0');
        }
        if (at_ == first) fail("there must be a number");
        return value;
    }

    std::string text() {
        expect('"');
        std::string out;
        while (true) {
            if (at_ >= json_.size()) fail("a text must end");
            const char c = json_[at_++];
            if (c == '"') return out;
            if (static_cast<unsigned char>(c) < 0x20) fail("a text may hold no control characters");
            if (c == '\\')
                escaped(out);
            else
                out += c;
        }
    }

    void escaped(std::string &out) {
        if (at_ >= json_.size()) fail("a text must end");
        const char c = json_[at_++];
        static constexpr std::string_view kLetters = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
        const std::size_t found = kLetters.find(c);
        if (found != std::string_view::npos) {
            out += kMeant[found];
        } else if (c == 'u') {
            std::uint32_t point = hexadecimal();
            if (point >= 0xd800 && point < 0xdc00) {
                if (json_.substr(at_, 2) != "\\u") fail("a surrogate must come with its other half");
                at_ += 2;
                const std::uint32_t low = hexadecimal();
                if (low < 0xdc00 || low > 0xdfff) fail("a surrogate must come with its other half");
                point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
            } else if (point >= 0xdc00 && point < 0xe000) {
                fail("a surrogate must come with its other half");
            }
            append_utf8(out, point);
        } else {
            fail(std::string("there is no escape ") + c);
        }
    }

    std::uint32_t hexadecimal() {
        if (json_.size() - at_ < 4) fail("a text must end");
        std::uint32_t value = 0;
        for (int i = 0; i < 4; ++i) {
            const char c = json_[at_++];
            const int digit = c >= '0' && c <= '9'   ? c - '0'
                              : c >= 'a' && c <= 'f' ? c - 'a' + 10
                              : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                     : -1;
            if (digit < 0) fail("there must be four hexadecimal digits");
            value = value << 4 | static_cast<std::uint32_t>(digit);
        }
        return value;
    }

    static void append_utf8(std::string &out, std::uint32_t point) {
        const auto byte = [&](std::uint32_t value) { out += static_cast<char>(value); };
        const auto follow = [&](int shift) { byte(0x80 | ((point >> shift) & 0x3f)); };
        if (point < 0x80) {
            byte(point);
        } else if (point < 0x800) {
            byte(0xc0 | point >> 6);
            follow(0);
        } else if (point < 0x10000) {
            byte(0xe0 | point >> 12);
            follow(6), follow(0);
        } else {
            byte(0xf0 | point >> 18);
            follow(12), follow(6), follow(0);
        }
    }

    std::string_view json_;
    std::size_t at_ = 0;
};

}  // namespace

Header parse_header(std::string_view json) { return Parser(json).parse(); }

}  // namespace autosparse
