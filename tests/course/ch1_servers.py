"""The servers for the checks of chapter 1."""

from tests.course.servers import Servers

ODD = {
    "slow": """
class Slow:
    def __init__(self, socket):
        self.socket = socket
    def __aiter__(self):
        return self.socket.__aiter__()
    async def send(self, message):
        await asyncio.sleep(0.01)
        await self.socket.send(message)
right = handle
async def handle(socket):
    await right(Slow(socket))
""",
    "talkative, in fragments": """
class Talkative:
    def __init__(self, socket):
        self.socket = socket
    def __aiter__(self):
        return self.socket.__aiter__()
    async def send(self, message):
        if isinstance(message, str) and message[:1] == "{":
            told = json.loads(message)
            if told["type"] == "transcript":
                await self.socket.send(json.dumps({"text": told["text"][:9], "type": "partial"}))
            message = json.dumps({"extra": [1, {"a": None}], **dict(reversed(told.items()))})
        half = len(message) // 2 // 2 * 2
        await self.socket.send([message[:half], message[half:]])
right = handle
async def handle(socket):
    await right(Talkative(socket))
""",
}

CLOSES = """
async def handle(socket):
    await socket.close(1011, "no")
"""

WRONG = {
    "ch1.pong": {
        "answers everything with pong": """
async def handle(socket):
    async for message in socket:
        await socket.send("pong")
""",
        "echoes": """
async def handle(socket):
    async for message in socket:
        await socket.send(message)
""",
        "answers in JSON": """
async def handle(socket):
    async for message in socket:
        if message == "ping":
            await socket.send(json.dumps({"type": "pong"}))
""",
        "hangs up": CLOSES,
        "exits": """
async def handle(socket):
    raise SystemExit("no more")
""",
    },
    "ch1.pong_while_busy": {
        "calls the models on the loop": """
async def off_loop(call, *arguments):
    return call(*arguments)
""",
        "hears and thinks on the loop": """
async def off_loop(call, *arguments):
    return await asyncio.to_thread(call, *arguments) if call == models.speak else call(*arguments)
""",
        "serves one caller after the other": """
one_by_one = asyncio.Lock()
async def handle(socket, right=answer):
    buffer, history = bytearray(), []
    async for message in socket:
        async with one_by_one:
            if isinstance(message, bytes):
                take(buffer, message)
            elif message == "ping":
                await socket.send("pong")
            else:
                await right(socket, bytes(buffer), history)
                buffer.clear()
""",
        "answers a fixed number of pings": """
pongs = 0
async def handle(socket):
    global pongs
    async for message in socket:
        if message == "ping" and pongs < 3:
            pongs += 1
            await socket.send("pong")
""",
    },
    "ch1.transcript": {
        "knows one recording by heart": """
async def answer(socket, audio, history):
    await socket.send(json.dumps({"type": "transcript", "text": "turn the living room light on"}))
    await socket.send(json.dumps({"type": "done", "reply_text": "", "reply_samples": 0}))
""",
        "hears nothing": """
async def answer(socket, audio, history):
    await socket.send(json.dumps({"type": "transcript", "text": ""}))
    await socket.send(json.dumps({"type": "done", "reply_text": "", "reply_samples": 0}))
""",
        "calls the text otherwise": """
async def answer(socket, audio, history):
    await socket.send(json.dumps({"type": "transcript", "words": "what was said"}))
""",
        "reads the high byte first": """
def from_wire(data):
    return np.frombuffer(data, ">i2").astype(np.float32) / 32768
""",
        "sends the words without JSON": """
async def answer(socket, audio, history):
    await socket.send("turn the living room light on")
""",
    },
    "ch1.reply_is_speech": {
        "sends a WAV file": """
right = say_reply
async def say_reply(socket, sentences):
    import struct
    await socket.send(b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(28))
    return await right(socket, sentences)
""",
        "sends noise": """
async def say_reply(socket, sentences):
    noise = np.random.default_rng(1).normal(0, 0.1, 2 * RATE).astype(np.float32)
    await socket.send(to_wire(noise))
    return len(noise)
""",
        "sends floats": """
def to_wire(samples):
    return samples.astype("<f4").tobytes()
""",
        "gives the recording back": """
async def answer(socket, audio, history):
    words = await off_loop(models.hear, from_wire(audio))
    await socket.send(json.dumps({"type": "transcript", "text": words}))
    await socket.send(audio)
    await socket.send(json.dumps({"type": "done", "reply_text": words}))
""",
        "says always the same": """
right = say_reply
async def say_reply(socket, sentences):
    return await right(socket, ["The kitchen light is off."])
""",
        "reads the transcript aloud": """
async def answer(socket, audio, history):
    words = await off_loop(models.hear, from_wire(audio))
    await socket.send(json.dumps({"type": "transcript", "text": words}))
    reply = await off_loop(models.think, [{"role": "user", "content": words}])
    await say_reply(socket, [words])
    await socket.send(json.dumps({"type": "done", "reply_text": " ".join(reply)}))
""",
        "speaks at 24 kHz": """
right = to_wire
def to_wire(samples):
    at = np.arange(len(samples) * 3 // 2) * 2 / 3
    return right(np.interp(at, np.arange(len(samples)), samples))
""",
        "says nothing": """
async def say_reply(socket, sentences):
    return 0
""",
    },
    "ch1.loud_samples": {
        "casts without a limit": """
def to_wire(samples):
    return (samples * 32768).astype(np.int64).astype("<i2").tobytes()
""",
        "reads without a sign": """
def from_wire(data):
    return np.frombuffer(data, "<u2").astype(np.float32) / 65536
""",
        "forgets the scale": """
def to_wire(samples):
    return np.clip(samples, -32768, 32767).astype("<i2").tobytes()
""",
        "plays a recorded reply that wraps": """
async def say_reply(socket, sentences):
    tone = np.round(33_000 * np.sin(np.arange(RATE) / 5)).astype(np.int64).astype("<i2")
    await socket.send(tone.tobytes())
    return RATE
""",
    },
    "ch1.odd_frame": {
        "fails at once": """
def take(buffer, chunk):
    buffer.extend(np.frombuffer(chunk, "<i2").tobytes())
""",
        "takes it": """
def take(buffer, chunk):
    buffer.extend(chunk)
""",
        "drops it without a word": """
def take(buffer, chunk):
    if len(chunk) % 2 == 0:
        buffer.extend(chunk)
""",
        "calls it otherwise": """
right = take
def take(buffer, chunk):
    if len(chunk) % 2:
        raise ProtocolError("bad", "no", "")
    right(buffer, chunk)
""",
        "refuses three bytes only": """
def take(buffer, chunk):
    if len(chunk) == 3:
        raise ProtocolError(ErrorCode.ODD_LENGTH, "three bytes", "")
    buffer.extend(chunk)
""",
        "forgets what came before": """
right = take
def take(buffer, chunk):
    if len(chunk) % 2:
        buffer.clear()
    return right(buffer, chunk)
""",
    },
    "ch1.empty_utterance": {
        "hears something in nothing": """
async def answer(socket, audio, history):
    await socket.send(json.dumps({"type": "transcript", "text": "thank you"}))
    await socket.send(json.dumps({"type": "done", "reply_text": "", "reply_samples": 0}))
""",
        "does not answer": """
right = answer
async def answer(socket, audio, history):
    if audio:
        await right(socket, audio, history)
""",
        "divides by the length": """
right = from_wire
def from_wire(data):
    samples = right(data)
    return samples - samples.sum() / 1 if 1 // len(samples) == 0 else samples
""",
    },
    "ch1.bounded_buffer": {
        "takes everything": """
def take(buffer, chunk):
    buffer.extend(chunk)
""",
        "drops without a word": """
def take(buffer, chunk):
    if len(buffer) < 60 * RATE * 2:
        buffer.extend(chunk)
""",
        "takes ten seconds": """
LONGEST_S = 10
""",
        "adds first, refuses afterwards": """
def take(buffer, chunk):
    buffer += chunk
    if len(buffer) > 60 * RATE * 2:
        raise ProtocolError(ErrorCode.BUFFER_FULL, "no room", "")
""",
        "takes bytes for samples": """
LONGEST_S = 30
""",
        "calls it otherwise": """
right = take
def take(buffer, chunk):
    try:
        right(buffer, chunk)
    except ProtocolError:
        raise ProtocolError("full", "no room", "")
""",
        "stays full": """
full = False
def take(buffer, chunk):
    global full
    full = full or len(buffer) > 60 * RATE * 2
    if full:
        raise ProtocolError(ErrorCode.BUFFER_FULL, "no room", "")
    buffer.extend(chunk)
""",
        "hangs up": """
right = take
def take(buffer, chunk):
    try:
        right(buffer, chunk)
    except ProtocolError:
        raise MemoryError("too much audio")
""",
    },
    "ch1.reply_streams": {
        "sends the reply whole": """
async def say_reply(socket, sentences):
    speech = await off_loop(models.speak, " ".join(sentences))
    await socket.send(to_wire(speech))
    return len(speech)
""",
        "makes all of it, then sends in pieces": """
async def say_reply(socket, sentences):
    spoken = [await off_loop(models.speak, sentence) for sentence in sentences]
    speech = np.concatenate([*spoken, np.zeros(0, np.float32)])
    for start in range(0, len(speech), PIECE):
        await socket.send(to_wire(speech[start : start + PIECE]))
    return len(speech)
""",
        "knows one reply by heart": """
async def answer(socket, audio, history):
    await socket.send(json.dumps({"type": "transcript", "text": "hello"}))
    await socket.send(bytes(RATE))
    await socket.send(json.dumps({"type": "done", "reply_text": "Hello there"}))
""",
        "loses the end of every sentence": """
async def say_reply(socket, sentences):
    samples = 0
    for sentence in sentences:
        speech = await off_loop(models.speak, sentence)
        for start in range(0, len(speech) - PIECE, PIECE):
            await socket.send(to_wire(speech[start : start + PIECE]))
            samples += PIECE
    return samples
""",
        "counts bytes for samples": """
class Counting:
    def __init__(self, socket):
        self.socket, self.bytes = socket, 0
    async def send(self, message):
        if isinstance(message, bytes):
            self.bytes += len(message)
        elif '"done"' in message:
            message = json.dumps({**json.loads(message), "reply_samples": self.bytes})
        await self.socket.send(message)
right = answer
async def answer(socket, audio, history):
    await right(Counting(socket), audio, history)
""",
        "sends a click ahead, by heart": """
async def say_reply(socket, sentences):
    await socket.send(bytes(100))
    speech = await off_loop(models.speak, " ".join(sentences))
    await socket.send(to_wire(speech))
    return 50 + len(speech)
""",
    },
    "ch1.two_turns": {
        "keeps what was said before": """
async def handle(socket):
    buffer, history = bytearray(), []
    async for message in socket:
        if isinstance(message, bytes):
            take(buffer, message)
        else:
            await answer(socket, bytes(buffer), history)
""",
        "answers once": """
right = answer
async def answer(socket, audio, history):
    if not history:
        await right(socket, audio, history)
""",
        "repeats its first answer": """
right = answer
async def answer(socket, audio, history):
    socket.first = getattr(socket, "first", audio)
    await right(socket, socket.first, history)
""",
        "is never done": """
async def say_reply(socket, sentences):
    while True:
        await socket.send(bytes(2 * PIECE))
        await asyncio.sleep(0.001)
""",
        "is done twice": """
right = answer
async def answer(socket, audio, history):
    await right(socket, audio, history)
    await socket.send(json.dumps({"type": "done", "reply_text": ""}))
""",
        "hangs up after a turn": """
right = answer
async def answer(socket, audio, history):
    await right(socket, audio, history)
    await socket.close()
""",
    },
}

CH1 = Servers(chapter=1, wrong=WRONG, odd=ODD)
