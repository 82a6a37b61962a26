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
    new = serving[socket]
    new.id, start = resume.session, SessionStart(type="session.start")
    new.agree(start)
    await new.tell(SessionStarted(protocol="labkit.v1", session=new.id, token=new.token,
        resumed=True, input=start.input, output=start.output, received=Position({place})))
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
        "does not know `resume`": """
SessionStart = SessionStart.__mro__[1]
CLIENT = TypeAdapter(Annotated[SessionStart | AudioEnd | Ping, Field(discriminator="type")])
""",
        "counts turns anew": """
right = come_back
async def come_back(socket, resume):
    await right(socket, resume)
    serving[socket].turn = 0
""",
    },
    "ch4.nothing_lost": {
        "says only what it has not said yet": """
Replay.rewind = Replay.acknowledge
""",
        "says everything that it has kept": """
def rewind(self, position):
    self.sent = 0
Replay.rewind = rewind
""",
        "makes silence of what comes again": """
right_rewind, right_next = Replay.rewind, Replay.next
def rewind(self, position):
    self.again = self.sent
    right_rewind(self, position)
def next_one(self):
    message = right_next(self)
    again = self.sent <= getattr(self, "again", 0) and isinstance(message, bytes)
    return bytes(len(message)) if again else message
Replay.rewind, Replay.next = rewind, next_one
""",
        "claims more than was sent": """
Lasting.received = property(lambda s: Position(messages=s.ends, samples=s.incoming.samples + 9999))
""",
        "forgets what it has acknowledged": """
Lasting.received = property(lambda s: Position(messages=0, samples=0))
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
        "has short ones": """
class secrets:
    from secrets import compare_digest, token_hex
    def token_urlsafe(size):
        return secrets.token_hex(4)
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
            resume.session = name
    await right(socket, resume)
""",
        "keeps one for ever": """
right = Lasting.tell
async def tell(self, message):
    if isinstance(message, SessionStarted):
        message.token = self.first = getattr(self, "first", message.token)
        self.tokens = [self.first]
    await right(self, message)
Lasting.tell = tell
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
    if (session := lasting.get(resume.session)) and session.socket:
        cause = Cause(type="session.start")
        return await serving[socket].refuse("already_started", "in use", "wait", cause)
    await right(socket, resume)
""",
        "leaves the first open": """
right = come_back
async def come_back(socket, resume):
    old = lasting[resume.session].socket
    lasting[resume.session].socket = None
    await right(socket, resume)
""",
        "drops the first without a word": """
right = come_back
async def come_back(socket, resume):
    old, lasting[resume.session].socket = lasting[resume.session].socket, None
    serving.pop(old)
    await right(socket, resume)
    old.transport.abort()
""",
        "lets the end of the first end the session": """
right = come_back
async def come_back(socket, resume):
    old, session = lasting[resume.session].socket, lasting[resume.session]
    session.socket = None
    await right(socket, resume)
    async def close():
        await asyncio.sleep(0.3)
        await old.close(4006, "resumed")
    session.closing = asyncio.create_task(close())
""",
    },
    "ch4.wrong_format": {
        "says nothing": """
def misread(audio):
    return None
""",
        "suspects everything": """
def misread(audio):
    return "looks_like_float32"
""",
        "knows one name by heart": """
right = misread
def misread(audio):
    return right(audio) and "looks_like_file"
""",
        "calls all noise floats": """
right = misread
def misread(audio):
    return "looks_like_float32" if right(audio) == "looks_like_big_endian" else right(audio)
""",
        "hangs up": """
right = misread
def misread(audio):
    if right(audio):
        raise ValueError("this is no audio")
async def answer_in_turn(self, audio):
    try:
        await respond(self, audio)
    except ValueError as wrong:
        await self.socket.close(1003, str(wrong))
Lasting.answer_in_turn = answer_in_turn
""",
    },
    "ch4.slow_reader": {
        "sends whatever there is": """
KEPT_BYTES = 2**30
""",
        "throws away what does not fit": """
right = Lasting.put
async def put(self, message, samples):
    if not samples or self.replay.held() < KEPT_BYTES:
        self.replay.add(message, samples)
        await self.flush()
Lasting.put = put
""",
        "lets nobody speak meanwhile": """
one_for_all = asyncio.Lock()
async def answer_in_turn(self, audio):
    async with one_for_all:
        await respond(self, audio)
Lasting.answer_in_turn = answer_in_turn
""",
        "hangs up": """
async def put(self, message, samples):
    if self.socket and self.replay.held() > KEPT_BYTES:
        await self.socket.close(4008, "too slow")
    self.replay.add(message, samples)
    await self.flush()
Lasting.put = put
""",
    },
    "ch4.abandoned": {
        "keeps all of them": """
def leave(session):
    session.socket = None
""",
        "keeps none": """
def leave(session):
    session.expire()
""",
        "keeps what its client has ended": """
right = leave
def leave(session):
    lasting[session.id] = session
    right(session)
""",
        "keeps a number of them, for ever": """
right = leave
def leave(session):
    right(session)
    if session.expiry is not None:
        session.expiry.cancel()
""",
        "does not say for how long": """
class SessionStarted(SessionStarted):
    limits: None = None
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
        cause = Cause(type="session.start")
        return await serving[socket].refuse("gone", "no such session", "begin", cause)
    await right(socket, resume)
""",
    },
}

CH4 = Servers(chapter=4, wrong=WRONG, odd=ODD)
