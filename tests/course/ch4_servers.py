"""The servers for the checks of chapter 4."""

from tests.course.servers import Servers

ODD = {
    "slow": """
class Slow:
    def __init__(self, socket):
        self.socket, self.one = socket, asyncio.Lock()
    def __getattr__(self, name):
        return getattr(self.socket, name)
    def __aiter__(self):
        return self.socket.__aiter__()
    async def send(self, message):
        async with self.one:  # in the order in which it was asked to
            await asyncio.sleep(0.003)
            await self.socket.send(message)
right = handle
async def handle(socket):
    await right(Slow(socket))
""",
    "talkative, in fragments": """
class Talkative:
    def __init__(self, socket):
        self.socket = socket
    def __getattr__(self, name):
        return getattr(self.socket, name)
    def __aiter__(self):
        return self.socket.__aiter__()
    async def send(self, message):
        if isinstance(message, str) and message[:1] == "{":
            told = json.loads(message)
            if told["type"] == "transcript.final":
                await self.socket.send(json.dumps({"text": "", "type": "transcript.partial"}))
            message = json.dumps({"extra": [1, {"a": None}], **dict(reversed(told.items()))})
        half = len(message) // 2 // 2 * 2
        await self.socket.send([message[:half], message[half:]])
right = handle
async def handle(socket):
    await right(Talkative(socket))
""",
}

ANOTHER = """
async def come_back(socket, resume):
    new, right = serving[socket], V1.welcome
    new.id, new.received = resume.session, Position({place})
    V1.welcome = lambda session: right(session, resumed=True)
    await begin(new, v1.SessionStart())
    V1.welcome = right
"""

CLOSING = """
right = come_back
async def come_back(socket, resume):
    if (session := lasting.get(resume.session)) is None:
        return await right(socket, resume)
    old = session.socket
    old.right_close = old.close
    old.close = lambda code, reason: close(session, old)
    await right(socket, resume)
"""

WINDOW = """
from labkit.protocol.replay import ReplayWindow
right_begin = begin
async def begin(session, start):
    await right_begin(session, start)
    if start.resume is None:
        session.replay.__class__ = Window
"""

WRONG = {
    "ch4.resume_keeps": {
        "begins anew": ANOTHER.replace("{place}", ""),
        "knows one position by heart": ANOTHER.replace("{place}", "messages=1, samples=16000"),
        "forgets the utterance": """
right = come_back
async def come_back(socket, resume):
    await right(socket, resume)
    serving[socket].buffer.clear()
""",
        "keeps the session that a new connection began with": """
right = come_back
async def come_back(socket, resume):
    new = serving[socket]
    await right(socket, resume)
    new.is_active = True
    sessions.add(new)
""",
        "keeps no audio while nobody is there": """
right, right_leave = put, leave
def leave(session):
    session.left = getattr(session, "left", 0) + 1
    right_leave(session)
async def put(session, message):
    if not isinstance(message, bytes) or session.turn < 3:
        return await right(session, message)
    while session.left < 2:  # until it goes, so that nothing is sent before
        await asyncio.sleep(0.01)
    session.samples += len(message) // session.start.output.format.frame_bytes
""",
        "does not know `resume`": """
right = decode
def decode(text):
    if "resume" in json.loads(text):
        raise ProtocolError(ErrorCode.INVALID_FIELD, "there is no field resume", "leave it out")
    return right(text)
""",
        "forgets what was said on an earlier connection": """
right = come_back
async def come_back(socket, resume):
    await right(socket, resume)
    serving[socket].history.clear()
""",
        "counts turns anew": """
right = come_back
async def come_back(socket, resume):
    await right(socket, resume)
    serving[socket].turn = 0
""",
    },
    "ch4.nothing_lost": {
        "says only what it has not said yet": WINDOW
        + """
class Window(ReplayWindow):
    def rewind(self, received):
        self.acknowledge(received)
""",
        "says everything that it has kept": WINDOW
        + """
class Window(ReplayWindow):
    def rewind(self, received):
        super().rewind(self.base)
""",
        "makes silence of what comes again": WINDOW
        + """
again = False
class Window(ReplayWindow):
    def rewind(self, received):
        global again
        again = True
        return super().rewind(received)
    def take(self):
        message = super().take()
        return bytes(len(message)) if again and isinstance(message, bytes) else message
""",
        "claims more than was sent": """
right_hear = hear
async def hear(session, data):
    await right_hear(session, data)
    session.received = session.received.plus(samples=99)
""",
        "acknowledges samples alone": """
right = V1.tell
async def tell(self, message):
    if message.type == "audio.ack":
        told = {"type": "audio.ack", "received": message.received.samples}
        return await self.socket.send(json.dumps(told))
    await right(self, message)
V1.tell = tell
""",
        "forgets what it has acknowledged": """
V1.received = property(lambda self: Position(), lambda self, position: None)
""",
    },
    "ch4.tokens": {
        "counts": """
class secrets:
    from secrets import compare_digest, token_hex
    made = 0
    def token_urlsafe(size):
        secrets.made += 1
        return f"{secrets.made:032}"
""",
        "looks at the first half": """
right = come_back
async def come_back(socket, resume):
    session = lasting.get(resume.session)
    for one in session.tokens if session else ():
        if one.startswith(resume.token[:16]):
            resume = resume.model_copy(update={"token": one})
    await right(socket, resume)
""",
        "takes capitals for small letters": """
right = come_back
async def come_back(socket, resume):
    session = lasting.get(resume.session)
    for one in session.tokens if session else ():
        if one.lower() == resume.token.lower():
            resume = resume.model_copy(update={"token": one})
    await right(socket, resume)
""",
        "has short ones": """
class secrets:
    from secrets import compare_digest, token_hex
    def token_urlsafe(size):
        return secrets.token_hex(4)
""",
        "compares text": """
class secrets:
    from secrets import token_hex, token_urlsafe
    def compare_digest(one, other):
        import secrets
        return secrets.compare_digest(one.decode(), other.decode())
""",
        "takes any": """
class secrets:
    from secrets import token_hex, token_urlsafe
    def compare_digest(one, other):
        return True
""",
        "looks at the token alone": """
right = come_back
async def come_back(socket, resume):
    for name, session in lasting.items():
        if resume.token in session.tokens:
            resume = resume.model_copy(update={"session": name})
    await right(socket, resume)
""",
        "takes the session before it compares": """
right = come_back
async def come_back(socket, resume):
    session = lasting.get(resume.session)
    if session and session.socket is not socket and serving.pop(session.socket, None):
        session.closing = asyncio.create_task(session.socket.close(4006, "resumed"))
    await right(socket, resume)
""",
        "takes any place for one that was sent": WINDOW
        + """
class Window(ReplayWindow):
    def rewind(self, received):
        return super().rewind(min(received, self.sent, key=lambda place: place.messages))
""",
        "keeps one for ever": """
right = V1.welcome
async def welcome(session, **told):
    session.first = getattr(session, "first", session.tokens[-1])
    session.tokens = [session.first]
    await right(session, **told)
V1.welcome = welcome
""",
        "voids the old one at once": """
right = come_back
async def come_back(socket, resume):
    await right(socket, resume)
    serving[socket].tokens = serving[socket].tokens[-1:]
""",
        "takes all that there ever were": """
every = []
right = come_back
async def come_back(socket, resume):
    every.append(resume.token)
    if resume.session in lasting and resume.token in every[:-1]:
        lasting[resume.session].tokens += every
    await right(socket, resume)
""",
    },
    "ch4.takeover": {
        "keeps the first": """
right = come_back
async def come_back(socket, resume):
    if (session := lasting.get(resume.session)) and session.socket in serving:
        raise ProtocolError(ErrorCode.ALREADY_STARTED, "in use", "wait")
    await right(socket, resume)
""",
        "leaves the first open": CLOSING
        + """
async def close(session, old):
    pass
""",
        "drops the first without a word": CLOSING
        + """
async def close(session, old):
    old.transport.abort()
""",
        "lets the end of the first let the session go": CLOSING
        + """
async def close(session, old):
    serving[old] = session
    await old.right_close(4006, "resumed")
""",
        "lets the end of the first end the session": CLOSING
        + """
async def close(session, old):
    await old.right_close(4006, "resumed")
    expire(session)
    await session.socket.close(1001, "its client has left")
""",
    },
    "ch4.wrong_format": {
        "says nothing": """
class FormatWatch(FormatWatch):
    def feed(self, data, at_ns):
        return ()
""",
        "suspects everything": """
class FormatWatch(FormatWatch):
    told = False
    def feed(self, data, at_ns):
        guess = ProtocolError(ErrorCode.LOOKS_LIKE_FLOAT32, "floats", "send integers")
        told, self.told = self.told, True
        return () if told else (guess,)
""",
        "knows one name by heart": """
right = V1.refuse
async def refuse(self, error):
    error.code = ErrorCode.LOOKS_LIKE_FILE
    await right(self, error)
V1.refuse = refuse
""",
        "takes nothing of a message that it doubts": """
class FormatWatch(FormatWatch):
    def feed(self, data, at_ns):
        for guess in super().feed(data, at_ns):
            raise guess
        return ()
""",
        "looks when it has decoded": """
right = hear
async def hear(session, data):
    watch = session.watch
    session.watch = type("Nothing", (), {"feed": lambda self, data, at_ns: ()})()
    try:
        await right(session, data)
    finally:
        session.watch = watch
    for guess in watch.feed(data, time.perf_counter_ns()):
        await session.refuse(guess)
""",
        "counts nothing of a message that it doubts": """
right = hear
async def hear(session, data):
    before = session.received
    session.doubts = False
    await right(session, data)
    if session.doubts:
        session.received = before
right_refuse = V1.refuse
async def refuse(self, error):
    self.doubts = True
    await right_refuse(self, error)
V1.refuse = refuse
""",
        "counts what it refuses": """
right = hear
async def hear(session, data):
    if len(data) % 2:
        session.received = session.received.plus(samples=len(data) // 2)
    await right(session, data)
""",
        "hangs up": """
async def refuse(self, error):
    raise ValueError("this is no audio")
V1.refuse = refuse
""",
    },
    "ch4.slow_reader": {
        "sends whatever there is": """
LIMITS = Limits(resume_s=3, replay_bytes=2**30, replay_s=1e6)
""",
        "waits for what was told already": """
async def put(session, message):
    while not session.replay.has_room:
        await session.room.wait()
    if isinstance(message, bytes):
        samples = len(message) // session.start.output.format.frame_bytes
        session.samples += samples
        session.replay.add_audio(message, samples)
    else:
        session.seq += 1
        session.replay.add_text(message.model_copy(update={"seq": session.seq}).encode())
    await flush(session)
""",
        "throws away what does not fit": """
right = put
async def put(session, message):
    if session.replay.has_room:
        await right(session, message)
""",
        "lets nobody speak meanwhile": """
one_for_all = asyncio.Lock()
right = answer
async def answer(session, audio):
    async with one_for_all:
        await right(session, audio)
""",
        "hangs up": """
right = put
async def put(session, message):
    if not session.replay.has_room:
        await session.socket.close(4008, "too slow")
    await right(session, message)
""",
    },
    "ch4.abandoned": {
        "keeps all of them": """
def leave(session):
    pass
""",
        "keeps none": """
def leave(session):
    expire(session)
""",
        "lets all of them wait": """
right = leave
def leave(session):
    if session in lasting.values():
        return right(session)
    asyncio.get_running_loop().call_later(LIMITS.resume_s, expire, session)
""",
        "forgets that somebody came back": """
right = come_back
async def come_back(socket, resume):
    await right(socket, resume)
    session = serving[socket]
    session.expiry = asyncio.get_running_loop().call_later(3, expire, session)
""",
        "waits for longer than it says": """
right = leave
def leave(session):
    right(session)
    if session in lasting.values():
        session.expiry.cancel()
        session.expiry = asyncio.get_running_loop().call_later(6, expire, session)
""",
        "keeps a number of them, for ever": """
right = leave
def leave(session):
    right(session)
    if session in lasting.values():
        session.expiry.cancel()
""",
        "does not say for how long": """
right = V1.tell
async def tell(self, message):
    await right(self, message.model_copy(update={"limits": None}))
V1.tell = tell
""",
    },
    "ch4.too_many": {
        "takes everybody": """
async def has_place(socket):
    return True
""",
        "hangs up without a reason": """
right = has_place
async def has_place(socket):
    if len(serving) >= 64:
        await socket.close(1011)
    return len(serving) < 64
""",
        "waits for a goodbye": """
taken = 0
async def has_place(socket):
    global taken
    taken += 1
    if taken > 20:
        await socket.close(1013, "all places are taken")
    return taken <= 20
right = handle
async def handle(socket):
    global taken
    await right(socket)
    taken -= socket.close_code == 1000
""",
        "has a place for one": """
PLACES = 1
""",
        "gives no place back": """
came = 0
right = has_place
async def has_place(socket):
    global came
    came += 1
    if came <= 20:
        return True
    await socket.close(1013, "all places are taken")
""",
    },
    "ch4.killed": {
        "takes any session for its own": ANOTHER.replace("{place}", ""),
        "hangs up": """
right = come_back
async def come_back(socket, resume):
    if resume.session not in lasting:
        return await socket.close(1011, "no such session")
    await right(socket, resume)
""",
        "calls it otherwise": """
right = come_back
async def come_back(socket, resume):
    if resume.session not in lasting:
        raise ProtocolError(ErrorCode.IDLE, "no such session", "begin")
    await right(socket, resume)
""",
    },
}

CH4 = Servers(chapter=4, wrong=WRONG, odd=ODD)
