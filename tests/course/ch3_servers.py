"""The servers for the checks of chapter 3."""

from tests.course.servers import Servers

ODD = {
    "other order, extra keys": """
class Odd:
    def __init__(self, socket):
        self.socket = socket
    def __getattr__(self, name):
        return getattr(self.socket, name)
    def __aiter__(self):
        return self.socket.__aiter__()
    async def send(self, message):
        if isinstance(message, str) and message[:1] == "{":
            told = json.loads(message)
            message = json.dumps({"extra": [1, {"a": None}], **dict(reversed(told.items()))})
        await self.socket.send(message)
right = handle
async def handle(socket):
    await right(Odd(socket))
""",
    "talkative, in small pieces": """
right_told = V1.send_transcript
async def send_transcript(self, text):
    await self.socket.send('{"type": "transcript.partial"}')
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
    self.tokens = ["secret"]
V1.__init__ = __init__
""",
        "answers with its own formats": """
right_tell = V1.tell
async def tell(self, message):
    if message.type == "session.started":
        message = message.model_copy(update={"input": v1.AudioSpec(), "output": v1.AudioSpec()})
    await right_tell(self, message)
V1.tell = tell
""",
        "knows one session by heart": """
async def obey(session, message):
    await session.socket.send(json.dumps({
        "type": "session.started", "protocol": "labkit.v1", "session": "6cf4", "token": "a",
        "resumed": False, "input": {"encoding": "pcm_s16le", "sample_rate": 16000, "channels": 1},
        "output": {"encoding": "mulaw", "sample_rate": 8000, "channels": 1},
    }))
""",
        "begins anew what never was": """
right = begin
async def begin(session, start):
    await right(session, start.model_copy(update={"resume": None}))
""",
        "begins to count anew in each turn": """
right_told = V1.send_transcript
async def send_transcript(self, text):
    self.seq = 0
    await right_told(self, text)
V1.send_transcript = send_transcript
""",
        "clears its buffer behind the turn": """
async def end_utterance(session):
    async def turn(audio):
        await answer(session, audio)
        session.buffer.clear()
    session.buffer.extend(session.decoder.flush().tobytes())
    session.running = asyncio.ensure_future(turn(bytes(session.buffer)))
""",
        "hears the first utterance alone": """
right_hear, right_end = hear, end_utterance
async def hear(session, data):
    if not hasattr(session, "deaf"):
        await right_hear(session, data)
async def end_utterance(session):
    session.deaf = True
    await right_end(session)
""",
        "counts samples of its own rate": """
right_heard, right_audio, right_done = V1.send_transcript, V1.send_audio, V1.send_done
async def send_transcript(self, text):
    self.own = 0
    await right_heard(self, text)
async def send_audio(self, samples):
    self.own += len(samples)
    await right_audio(self, samples)
async def send_done(self, text):
    self.samples = self.own
    await right_done(self, text[:1])  # whose length does not move the words that are shown
V1.send_transcript, V1.send_audio, V1.send_done = send_transcript, send_audio, send_done
""",
    },
    "ch3.formats": {
        "resamples each chunk by itself": """
class StreamEncoder(StreamEncoder):
    def feed(self, samples):
        return super().feed(samples) + self.flush()
class StreamDecoder(StreamDecoder):
    def feed(self, data):
        return np.concatenate([super().feed(data), self.flush()])
""",
        "takes every third sample": """
class StreamDecoder:
    def __init__(self, form):
        self.form, self.step = form, form.sample_rate // RATE or 1
    def feed(self, data):
        return self.form.decode_int16(data)[:: self.step]
    def flush(self):
        return np.zeros(0, np.int16)
""",
        "repeats samples": """
class StreamEncoder:
    def __init__(self, form):
        self.form = form
    def feed(self, samples):
        rate = self.form.sample_rate
        at = np.arange(len(samples) * rate // RATE) * RATE // rate
        return self.form.encode(samples[at])
    def flush(self):
        return b""
""",
        "takes A-law for mu-law": """
from labkit.audio import formats, pcm
def mulaw(form):
    encoding = "mulaw" if form.encoding == "alaw" else form.encoding
    return formats.AudioFormat(pcm.Encoding(encoding), form.sample_rate)
def StreamDecoder(form):
    return formats.StreamDecoder(mulaw(form))
def StreamEncoder(form):
    return formats.StreamEncoder(mulaw(form))
""",
        "ignores the formats": """
right_begin = begin
async def begin(session, start):
    await right_begin(session, start)
    usual = v1.AudioSpec()
    session.start = start.model_copy(update={"input": usual, "output": usual})
    session.decoder, session.encoder = StreamDecoder(usual.format), StreamEncoder(usual.format)
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
        return v1.SessionStart()
    return CLIENT.validate_json(text)
""",
        "ignores fields that it does not know": """
right = CLIENT
class CLIENT:
    def validate_json(text):
        return right.validate_json(text, extra="ignore")
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
    except ProtocolError as wrong:
        raise ProtocolError(ErrorCode.INVALID_JSON, str(wrong), wrong.hint)
""",
        "gives no message": """
async def refuse(self, error):
    told = v1.Error(code=error.code, message="", hint=error.hint, cause=self.cause)
    await self.socket.send(json.dumps({**told.model_dump(mode="json"), "message": None}))
V1.refuse = refuse
""",
        "does not say which field": """
right = decode
def decode(text):
    try:
        return right(text)
    except ProtocolError as wrong:
        raise ProtocolError(wrong.code, "no", wrong.hint)
""",
        "gives no hint": """
async def refuse(self, error):
    told = v1.Error(code=error.code, message=str(error), cause=self.cause).model_dump(mode="json")
    del told["hint"]
    await self.socket.send(json.dumps(told))
V1.refuse = refuse
""",
        "hangs up after an error": """
right_refuse = V1.refuse
async def refuse(self, error):
    await right_refuse(self, error)
    await self.socket.close(1008, error.code)
V1.refuse = refuse
""",
        "forgets what was said before an error": """
right_refuse = V1.refuse
async def refuse(self, error):
    self.buffer.clear()
    await right_refuse(self, error)
V1.refuse = refuse
""",
        "knows two words that are wrong by heart": """
right = decode
def decode(text):
    if json.loads(text)["type"] in ("session.start", "ping", "audio.end", "session.end"):
        return right(text)
""",
    },
    "ch3.cause": {
        "knows no acknowledgement": """
right_obey = obey
async def obey(session, message):
    if session.start is not None and isinstance(message, v1.ResponseAck):
        assert_never(message)
    await right_obey(session, message)
""",
        "does not wait for the answer": """
right_obey = obey
async def obey(session, message):
    if session.start is not None and isinstance(message, v1.AudioEnd):
        end_utterance(session).close()  # as without await, and no warning
        return
    await right_obey(session, message)
""",
        "names no cause": """
right_refuse = V1.refuse
async def refuse(self, error):
    self.cause = None
    await right_refuse(self, error)
V1.refuse = refuse
""",
        "names the last message that it read": """
right_obey, right_refuse = obey, V1.refuse
last = None
async def obey(session, message):
    global last
    last = getattr(message, "id", last)
    await right_obey(session, message)
async def refuse(self, error):
    self.cause = self.cause.model_copy(update={"id": last})
    await right_refuse(self, error)
V1.refuse = refuse
""",
        "calls the cause by its kind alone": """
right_refuse = V1.refuse
async def refuse(self, error):
    self.cause = self.cause.model_copy(update={"id": None})
    await right_refuse(self, error)
V1.refuse = refuse
""",
        "has ids of its own": """
right_refuse = V1.refuse
async def refuse(self, error):
    self.cause = self.cause.model_copy(update={"id": "a-1"})
    await right_refuse(self, error)
V1.refuse = refuse
""",
        "does not repeat the id of a ping": """
right_tell = V1.tell
async def tell(self, message):
    await right_tell(self, v1.Pong() if message.type == "pong" else message)
V1.tell = tell
""",
        "begins a second session": """
right_obey = obey
async def obey(session, message):
    if isinstance(message, v1.SessionStart):
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
        "takes any brace for control": """
right = hear
async def hear(session, data):
    if data.startswith(b"{"):
        raise ProtocolError(ErrorCode.WRONG_FRAME, "JSON as binary", "send control as text")
    await right(session, data)
""",
        "hears control as audio": """
async def hear(session, data):
    if len(data) % session.start.input.format.frame_bytes:
        raise ProtocolError(ErrorCode.ODD_LENGTH, "odd", "even")
    take(session.buffer, session.decoder.feed(data).tobytes())
""",
        "answers a binary ping": """
right_hear = hear
async def hear(session, data):
    if data == b"ping":
        await session.tell(v1.Pong())
    else:
        await right_hear(session, data)
""",
        "refuses an odd number of bytes whatever they are": """
right_hear = hear
async def hear(session, data):
    if len(data) % 2 and data[:1] != b"{":
        raise ProtocolError(ErrorCode.ODD_LENGTH, "odd", "even")
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
        raise ProtocolError(ErrorCode.WRONG_FRAME, "JSON", "as text")
    take(session.buffer, session.decoder.feed(data).tobytes())
""",
    },
    "ch3.versions": {
        "speaks labkit.v1 with everybody": """
async def handle(socket):
    session = V1(socket)
    with attached(session):
        async for message in socket:
            try:
                await session.receive(message)
            except ProtocolError as error:
                await session.refuse(error)
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
class SessionStart(v1.SessionStart):
    protocol: str = "labkit.v1"
CLIENT = TypeAdapter(Annotated[SessionStart | v1.Ping, Field(discriminator="type")])
""",
        "hangs up on a newer one": """
right = decode
def decode(text):
    try:
        return right(text)
    except ProtocolError:
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
