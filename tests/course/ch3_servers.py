"""The servers for the checks of chapter 3."""

from tests.course.servers import Servers

ODD = {
    "other order, extra keys": """
right_send = SessionState.send
async def send(self, message):
    if isinstance(message, str) and message[:1] == "{":
        told = json.loads(message)
        message = json.dumps({"extra": [1, {"a": None}], **dict(reversed(told.items()))})
    await right_send(self, message)
SessionState.send = send
""",
    "talkative, in small pieces": """
right_told = V1.send_transcript
async def send_transcript(self, text):
    await self.send_json({"type": "transcript.partial"})
    await asyncio.sleep(0.01)
    await right_told(self, text)
V1.send_transcript = send_transcript
PIECE = 137
""",
}

WRONG = {
    "ch3.start": {
        "gives everybody the same session": """
right_init = V1.__init__
def __init__(self, socket):
    right_init(self, socket)
    self.id = "only-one"
V1.__init__ = __init__
""",
        "gives everybody the same token": """
right_init = V1.__init__
def __init__(self, socket):
    right_init(self, socket)
    self.token = "secret"
V1.__init__ = __init__
""",
        "answers with its own formats": """
right_send = V1.send_json
async def send_json(self, message):
    if message["type"] == "session.started":
        message |= {"input": Format().model_dump(), "output": Format().model_dump()}
    await right_send(self, message)
V1.send_json = send_json
""",
        "knows one session by heart": """
async def obey(session, message):
    await session.send(json.dumps({
        "type": "session.started", "protocol": "labkit.v1", "session": "6cf4", "token": "a",
        "resumed": False, "input": {"encoding": "pcm_s16le", "sample_rate": 16000, "channels": 1},
        "output": {"encoding": "mulaw", "sample_rate": 8000, "channels": 1},
    }))
""",
        "begins to count anew in each turn": """
right_told = V1.send_transcript
async def send_transcript(self, text):
    self.seq = 0
    await right_told(self, text)
V1.send_transcript = send_transcript
""",
        "counts samples of its own rate": """
async def send_done(self, text, samples):
    await self.send_ready(self.outgoing.end())
    status = "completed" if text else "nothing_heard"
    await self.tell_numbered("response.done", status=status, text=text, samples=samples)
V1.send_done = send_done
""",
    },
    "ch3.formats": {
        "resamples each chunk by itself": """
class Resampler:
    def __init__(self, source, target):
        self.rates = source, target
    def feed(self, samples):
        return soxr.resample(samples, *self.rates)
    def end(self):
        return np.zeros(0, np.float32)
""",
        "takes every third sample": """
class Resampler:
    def __init__(self, source, target):
        self.step = source // target
    def feed(self, samples):
        return samples[:: self.step] if self.step > 1 else samples
    def end(self):
        return np.zeros(0, np.float32)
""",
        "repeats samples": """
class Resampler:
    def __init__(self, source, target):
        self.source, self.target = source, target
    def feed(self, samples):
        at = np.arange(len(samples) * self.target // self.source) * self.source // self.target
        return samples[at]
    def end(self):
        return np.zeros(0, np.float32)
""",
        "takes A-law for mu-law": """
LAWS["alaw"] = LAWS["mulaw"]
""",
        "ignores the formats": """
right_begin = V1.begin
async def begin(self, start):
    await right_begin(self, start)
    self.start = start.model_copy(update={"input": Format(), "output": Format()})
    self.incoming = self.outgoing = Resampler(RATE, RATE)
V1.begin = begin
""",
    },
    "ch3.errors": {
        "fails at text that is no JSON": """
right = decode
def decode(text):
    json.loads(text)
    return right(text)
""",
        "takes everything": """
def decode(text):
    told = json.loads(text)
    if told["type"] == "session.start":
        return SessionStart(type="session.start")
    return CLIENT.validate_json(text)
""",
        "ignores fields that it does not know": """
class Format(Format, extra="ignore"):
    pass
class SessionStart(SessionStart):
    input: Format = Format()
    output: Format = Format()
CLIENT = TypeAdapter(Annotated[SessionStart | Signal, Field(discriminator="type")])
""",
        "takes a number in quotes": """
right = decode
def decode(text):
    try:
        return CLIENT.validate_json(text, strict=False)
    except ValidationError:
        return right(text)
""",
        "has one code for all": """
right = decode
def decode(text):
    try:
        return right(text)
    except Refused as refused:
        raise Refused("invalid_json", *refused.args[1:])
""",
        "does not say which field": """
right = decode
def decode(text):
    try:
        return right(text)
    except Refused as refused:
        code, _, hint = refused.args
        raise Refused(code, "no", hint)
""",
        "gives no hint": """
right_send = V1.send_json
async def send_json(self, message):
    message.pop("hint", None)
    await right_send(self, message)
V1.send_json = send_json
""",
        "hangs up after an error": """
right_send = V1.send_json
async def send_json(self, message):
    await right_send(self, message)
    if message["type"] == "error":
        await self.socket.close(1008, message["code"])
V1.send_json = send_json
""",
        "forgets what was said before an error": """
right_send = V1.send_json
async def send_json(self, message):
    if message["type"] == "error":
        self.buffer.clear()
    await right_send(self, message)
V1.send_json = send_json
""",
        "knows two words that are wrong by heart": """
right = decode
def decode(text):
    if json.loads(text)["type"] in ("session.start", "ping", "audio.end", "session.end"):
        return right(text)
""",
    },
    "ch3.cause": {
        "names no cause": """
right_send = V1.send_json
async def send_json(self, message):
    message.pop("cause", None)
    await right_send(self, message)
V1.send_json = send_json
""",
        "names the last message that it read": """
right_obey, right_send = obey, V1.send_json
last = None
async def obey(session, message):
    global last
    last = message.id
    await right_obey(session, message)
async def send_json(self, message):
    if message["type"] == "error":
        message["cause"]["id"] = last
    await right_send(self, message)
V1.send_json = send_json
""",
        "calls the cause by its kind alone": """
right_send = V1.send_json
async def send_json(self, message):
    if message["type"] == "error":
        message["cause"].pop("id", None)
    await right_send(self, message)
V1.send_json = send_json
""",
        "has ids of its own": """
right_send = V1.send_json
async def send_json(self, message):
    if message["type"] == "error":
        message["cause"]["id"] = "a-1"
    await right_send(self, message)
V1.send_json = send_json
""",
        "does not repeat the id of a ping": """
right_send = V1.send_json
async def send_json(self, message):
    await right_send(self, {"type": "pong"} if message["type"] == "pong" else message)
V1.send_json = send_json
""",
        "begins a second session": """
right_obey = obey
async def obey(session, message):
    if message.type == "session.start":
        session.start = None
    await right_obey(session, message)
""",
    },
    "ch3.text_and_binary": {
        "obeys control in a binary message": """
right_hear = hear
async def hear(session, data):
    if data[:1] == b"{":
        await obey(session, decode(data.decode()))
    else:
        await right_hear(session, data)
""",
        "hears control as audio": """
async def hear(session, data):
    if len(data) % 2 and session.start.input.encoding == "pcm_s16le":
        raise Refused("odd_length", "odd", "even")
    session.listen(decoded(data, session.start.input.encoding))
""",
        "answers a binary ping": """
right_hear = hear
async def hear(session, data):
    if data == b"ping":
        await session.send_json({"type": "pong", "id": None})
    else:
        await right_hear(session, data)
""",
        "refuses an odd number of bytes whatever they are": """
right_hear = hear
async def hear(session, data):
    if len(data) % 2 and data[:1] != b"{":
        raise Refused("odd_length", "odd", "even")
    await right_hear(session, data)
""",
        "takes audio written as text": """
right_receive = V1.receive
async def receive(self, message):
    if isinstance(message, str) and message[:1] != "{":
        message = bytes.fromhex(message)
    await right_receive(self, message)
V1.receive = receive
""",
        "fails at half a sample": """
async def hear(session, data):
    if data[:1] == b"{":
        raise Refused("wrong_frame", "JSON", "as text")
    session.listen(decoded(data, session.start.input.encoding))
""",
    },
    "ch3.versions": {
        "speaks labkit.v1 with everybody": """
async def handle(socket):
    with session_of(V1(socket)) as session:
        async for message in socket:
            await session.receive(message)
""",
        "chooses the first that is offered": """
def choose(socket, offered):
    return offered[0] if offered else None
""",
        "chooses none": """
def choose(socket, offered):
    return None
""",
        "takes the protocol for any": """
class SessionStart(SessionStart):
    protocol: str = "labkit.v1"
CLIENT = TypeAdapter(Annotated[SessionStart | Signal, Field(discriminator="type")])
""",
        "hangs up on a newer one": """
right = decode
def decode(text):
    try:
        return right(text)
    except Refused:
        raise ValueError("this client is too new")
""",
        "refuses clients that offer nothing that it knows": """
from websockets.exceptions import NegotiationError
def choose(socket, offered):
    if "labkit.v1" not in offered:
        raise NegotiationError("no subprotocol that is known")
    return "labkit.v1"
""",
    },
}

CH3 = Servers(chapter=3, wrong=WRONG, odd=ODD)
