"""wire.py: what the judge and the candidate say to each other: a closed codec, and calls over a socket.

Values cross by value: None, bool, int, float, complex, str, bytes, the containers, and a few plain types of the
standard library. Everything else crosses as a handle: a number that only its owner can turn into the object.
Nothing that is decoded can run code of the other side. Both sides use this file; judge.py and candidate.py say
what each allows. Tested by tests/test_reward_sandbox.c and the hostile programs.
"""

import builtins, collections, os, sys
from struct import pack, unpack

os_read, os_write = os.read, os.write  # the candidate may replace os.read; the channel does not care
MOST_BYTES, MOST_DEPTH, RECORD = 16 << 20, 800, 60000
DATE_FIELDS = {
    "timedelta": "days seconds microseconds",
    "date": "year month day",
    "time": "hour minute second microsecond",
    "datetime": "year month day hour minute second microsecond",
}
BUILTIN_TYPES = {n: t for n, t in vars(builtins).items() if isinstance(t, type)}


STDLIB = frozenset(sys.stdlib_module_names) - {"antigravity", "this", "test", "idlelib", "turtledemo"}


def is_shared(module):
    """Modules of the standard library: both sides have them, so that only their names need to cross."""
    return type(module) is str and module.partition(".")[0] in STDLIB


class Gone(BaseException):
    """The other side has closed the channel."""


class Oversize(Exception):
    """A value is too large or too deep to cross."""


class Broken(Exception):
    """The other side sent what the codec does not know."""


def library(module, name):
    """A class of the standard library, if its module is loaded: else there is no object of it either."""
    return getattr(sys.modules.get(module), name, None)


class Encoder:
    def __init__(self, peer):
        self.peer, self.out = peer, bytearray()

    def sized(self, tag, data):
        self.out += tag + pack("<I", len(data)) + data

    def room_for(self, n):
        if len(self.out) + n > MOST_BYTES:
            raise Oversize("a value is too large to be handed over")

    def many(self, tag, items, n, depth):
        self.room_for(n)
        if depth > MOST_DEPTH:
            raise Oversize("a value is too deep to be handed over")
        self.out += tag + pack("<I", n)
        for item in items:
            self.add(item, depth + 1)

    def add(self, v, depth=0):
        kind = type(v)
        if v is None:
            self.out += b"N"
        elif v is True:
            self.out += b"T"
        elif v is False:
            self.out += b"F"
        elif kind is int:
            self.room_for(v.bit_length() // 8)
            self.sized(b"i", v.to_bytes((v.bit_length() + 8) // 8, "little", signed=True))
        elif kind is float:
            self.out += b"f" + pack("<d", v)
        elif kind is str:
            self.room_for(len(v))
            self.sized(b"s", v.encode("utf-8", "surrogatepass"))
        elif kind is list:
            self.many(b"l", v, len(v), depth)
        elif kind is tuple:
            self.many(b"t", v, len(v), depth)
        elif kind is dict:
            self.pairs(b"d", v, depth)
        elif kind is set:
            self.many(b"S", v, len(v), depth)
        else:
            self.add_rare(v, kind, depth)
        self.room_for(0)

    def pairs(self, tag, v, depth):
        self.many(tag, [x for pair in dict.items(v) for x in pair], 2 * len(v), depth)

    def add_rare(self, v, kind, depth):
        if kind is frozenset:
            self.many(b"Z", v, len(v), depth)
        elif kind is bytes:
            self.sized(b"b", v)
        elif kind is bytearray:
            self.sized(b"B", bytes(v))
        elif kind is complex:
            self.out += b"c" + pack("<dd", v.real, v.imag)
        elif kind is range:
            self.many(b"r", (v.start, v.stop, v.step), 3, depth)
        elif kind is slice:
            self.many(b"L", (v.start, v.stop, v.step), 3, depth)
        elif v is Ellipsis:
            self.out += b"e"
        elif v is NotImplemented:
            self.out += b"n"
        elif kind is library("decimal", "Decimal"):
            self.sized(b"D", str(v).encode())
        elif kind is library("fractions", "Fraction"):
            self.many(b"Q", (v.numerator, v.denominator), 2, depth)
        elif kind is collections.deque:
            self.many(b"q", v, len(v), depth)
        elif kind is collections.Counter:
            self.pairs(b"C", v, depth)
        elif kind is collections.OrderedDict:
            self.pairs(b"O", v, depth)
        elif kind is collections.defaultdict:
            self.pairs(b"d", v, depth)
        elif (
            kind.__name__ in DATE_FIELDS
            and kind is library("datetime", kind.__name__)
            and not getattr(v, "tzinfo", None)
        ):
            self.sized(b"p", kind.__name__.encode())
            self.add([getattr(v, field) for field in DATE_FIELDS[kind.__name__].split()], depth + 1)
        elif kind is type and BUILTIN_TYPES.get(v.__name__) is v:
            self.sized(b"y", v.__name__.encode())
        else:
            tag, number = self.peer.handle_of(v)
            self.out += tag + pack("<Q", number)


class Decoder:
    def __init__(self, peer, data, at=0):
        self.peer, self.data, self.at = peer, data, at

    def take(self, n):
        if n > len(self.data) - self.at:
            raise Broken("short message")
        part = self.data[self.at : self.at + n]
        self.at += n
        return part

    def number(self):
        return unpack("<I", self.take(4))[0]

    def many(self, depth):
        n = self.number()
        if n > len(self.data) - self.at or depth > MOST_DEPTH + 10:
            raise Broken("impossible length")
        return [self.value(depth + 1) for _ in range(n)]

    def pairs(self, depth):
        items = self.many(depth)
        return dict(zip(items[::2], items[1::2]))

    def value(self, depth=0):
        tag = self.take(1)
        if tag == b"N":
            return None
        if tag == b"T":
            return True
        if tag == b"F":
            return False
        if tag == b"i":
            return int.from_bytes(self.take(self.number()), "little", signed=True)
        if tag == b"f":
            return unpack("<d", self.take(8))[0]
        if tag == b"s":
            return self.take(self.number()).decode("utf-8", "surrogatepass")
        if tag == b"l":
            return self.many(depth)
        if tag == b"t":
            return tuple(self.many(depth))
        if tag == b"d":
            return self.pairs(depth)
        if tag == b"S":
            return set(self.many(depth))
        return self.value_rare(tag, depth)

    def value_rare(self, tag, depth):
        if tag == b"Z":
            return frozenset(self.many(depth))
        if tag == b"b":
            return self.take(self.number())
        if tag == b"B":
            return bytearray(self.take(self.number()))
        if tag == b"c":
            return complex(*unpack("<dd", self.take(16)))
        if tag == b"r":
            return range(*self.many(depth))
        if tag == b"L":
            return slice(*self.many(depth))
        if tag == b"e":
            return Ellipsis
        if tag == b"n":
            return NotImplemented
        if tag == b"D":
            return __import__("decimal").Decimal(self.take(self.number()).decode())
        if tag == b"Q":
            return __import__("fractions").Fraction(*self.many(depth))
        if tag == b"q":
            return collections.deque(self.many(depth))
        if tag == b"C":
            return collections.Counter(self.pairs(depth))
        if tag == b"O":
            return collections.OrderedDict(self.pairs(depth))
        if tag == b"p":
            return self.date(self.take(self.number()).decode(), depth)
        if tag == b"y":
            return BUILTIN_TYPES[self.take(self.number()).decode()]
        if tag in (b"h", b"k"):
            return self.peer.object_of(tag, unpack("<Q", self.take(8))[0])
        raise Broken("unknown tag")

    def date(self, name, depth):
        parts = dict(zip(DATE_FIELDS[name].split(), self.value(depth + 1)))
        return getattr(__import__("datetime"), name)(**parts)


class Peer:
    """One end of the channel. Subclasses give serve(op, args) -> value and remote(error) -> exception."""

    def __init__(self, fd, token):
        self.fd, self.token = fd, token
        self.objects, self.numbers = [], {}

    # Handles: "h" is an object of the sender, "k" one of the receiver that comes home.
    def export(self, v):
        number = self.numbers.get(id(v))
        if number is None:
            number = self.numbers[id(v)] = len(self.objects)
            self.objects.append(v)
        return number

    def encode(self, v):
        encoder = Encoder(self)
        encoder.add(v)
        return bytes(encoder.out)

    def decode(self, data, at=0):
        try:
            return Decoder(self, data, at).value()
        except (Broken, Gone, MemoryError):
            raise
        except Exception as error:
            raise Broken("unusable value: " + type(error).__name__) from None

    # Records: token, "+" or "." (more follows, or the last), bytes. What lacks the token is not ours: a program
    # that writes into every descriptor it finds must not spoil its own right answer.
    def send(self, data):
        last = (len(data) - 1) // RECORD
        for i in range(last + 1):
            os_write(self.fd, self.token + (b"." if i == last else b"+") + data[i * RECORD : (i + 1) * RECORD])

    def receive(self):
        data = bytearray()
        while True:
            try:
                record = os_read(self.fd, RECORD + 64)
            except InterruptedError:
                continue
            except OSError:
                raise Gone() from None
            if not record:
                raise Gone()
            if record[:8] != self.token or len(record) < 9:
                continue
            data += record[9:]
            if len(data) > 2 * MOST_BYTES:
                raise Broken("endless message")
            if record[8:9] == b".":
                return bytes(data)

    def answer(self, data):
        """Serves one request of the other side. The reply tells a value, or an exception."""
        try:
            request = self.decode(data, 1)
            reply = b"=" + self.encode(self.serve(request[0], request[1:]))
        except Gone:
            raise
        except BaseException as error:
            reply = b"!" + self.encode(self.describe(error))
        self.send(reply)

    def request(self, *parts):
        try:
            self.send(b"?" + self.encode(parts))
        except OSError:
            raise Gone() from None
        while True:
            data = self.receive()
            if data[:1] == b"?":
                self.answer(data)
            elif data[:1] == b"=":
                return self.decode(data, 1)
            elif data[:1] == b"!":
                raise self.remote(self.decode(data, 1))
            else:
                raise Broken("unknown message")
