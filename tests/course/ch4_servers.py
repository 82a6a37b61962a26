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
    new.id, new.received = resume.session, Position({place})
    send_started = new.send_started
    new.send_started = lambda resumed: send_started(resumed=True)
    await new.begin(SessionStart(type="session.start"))
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
right = decode
def decode(text):
    if "resume" in json.loads(text):
        raise Refused("invalid_field", "resume: there is no such field", "leave it out")
    return right(text)
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
right_rewind = Replay.rewind
def rewind(self, position):
    right_rewind(self, position)
    self.kept = [(bytes(len(said)) if size else said, size) for said, size in self.kept]
Replay.rewind = rewind
""",
        "claims more than was sent": """
right_listen = V1.listen
def listen(self, samples):
    right_listen(self, samples)
    self.received.samples += 99
V1.listen = listen
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
right = V1.send_started
async def send_started(self, resumed):
    self.first = getattr(self, "first", self.tokens[-1])
    self.tokens = [self.first]
    await right(self, resumed)
V1.send_started = send_started
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
        raise Refused("already_started", "in use", "wait")
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
""",
    },
    "ch4.slow_reader": {
        "sends whatever there is": """
KEPT_BYTES = 2**30
""",
        "throws away what does not fit": """
async def put(self, message, samples):
    if not samples or self.replay.held() < KEPT_BYTES:
        self.replay.kept.append((message, samples))
        await self.flush()
V1.put = put
""",
        "lets nobody speak meanwhile": """
one_for_all = asyncio.Lock()
right = answer
async def answer(session, audio):
    async with one_for_all:
        await right(session, audio)
""",
        "hangs up": """
async def put(self, message, samples):
    if self.socket and self.replay.held() > KEPT_BYTES:
        await self.socket.close(4008, "too slow")
    self.replay.kept.append((message, samples))
    await self.flush()
V1.put = put
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
        "forgets that somebody came back": """
right = come_back
async def come_back(socket, resume):
    await right(socket, resume)
    session = serving[socket]
    session.expiry = asyncio.get_running_loop().call_later(RESUME_S, session.expire)
""",
        "keeps a number of them, for ever": """
right = leave
def leave(session):
    right(session)
    if session.expiry is not None:
        session.expiry.cancel()
""",
        "does not say for how long": """
right = V1.send_json
async def send_json(self, message):
    message.pop("limits", None)
    await right(self, message)
V1.send_json = send_json
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
        raise Refused("gone", "no such session", "begin")
    await right(socket, resume)
""",
    },
}

CH4 = Servers(chapter=4, wrong=WRONG, odd=ODD)
