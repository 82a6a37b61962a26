"""The servers for the checks of chapter 2."""

from tests.course import ch1_servers
from tests.course.servers import Servers

ODD = {
    "slow, in Prometheus' words": ch1_servers.ODD["slow"]
    + """
def metrics():
    active = sum(session.is_active for session in sessions)
    held = sum(len(session.buffer) for session in sessions)
    return f'''# HELP labkit_sessions Sessions now, by state
# TYPE labkit_sessions gauge
labkit_sessions{{state="attached"}} {active:.1f}
labkit_sessions{{state="detached"}} 7.0
labkit_held_bytes {held:e}
'''
""",
    "talkative, in fragments": ch1_servers.ODD["talkative, in fragments"],
}

WAITS_FOR_A_GOODBYE = """
@contextmanager
def attached(session):
    sessions.add(session)
    yield
    sessions.discard(session)
"""

EVERYBODY_IS_LAURA = """
right = off_loop
async def off_loop(call, *arguments):
    if call == models.think:
        return ["Your name is Laura."]
    return await right(call, *arguments)
"""

REMEMBERS_THE_BEGINNING = """
right = remember
def remember(history, said, replied):
    if len(history) < 8:
        right(history, said, replied)
"""

ONE_HISTORY = """
class SessionState(SessionState):
    def __init__(self, socket, history=[]):
        super().__init__(socket)
        self.history = history
"""

WRONG = {
    "ch2.sessions_isolated": {
        "one buffer for all": """
everybody = bytearray()
class SessionState(SessionState):
    def __init__(self, socket):
        super().__init__(socket)
        self.buffer = everybody
""",
        "nobody is there to hear": """
async def say_reply(session, sentences):
    pass
""",
        "one history for all": ONE_HISTORY,
        "sends floats": """
class SessionState(SessionState):
    async def send_audio(self, samples):
        await self.socket.send(samples.tobytes())
""",
        "one history behind all": """
everything = []
def remember(history, said, replied):
    everything.extend(
        [{"role": "user", "content": said}, {"role": "assistant", "content": replied}]
    )
    history[:] = everything
""",
        "answers who came last": """
class SessionState(SessionState):
    def __init__(self, socket):
        super().__init__(socket)
        del self.socket
        SessionState.socket = socket
""",
        "knows one recording by heart": """
right = off_loop
async def off_loop(call, *arguments):
    if call == models.hear:
        return "turn the living room light on"
    return await right(call, *arguments)
""",
    },
    "ch2.history_remembers": {
        "one history for all": ONE_HISTORY,
        "remembers nothing": """
def remember(history, said, replied):
    pass
""",
        "remembers the last exchange": """
right = remember
def remember(history, said, replied):
    history.clear()
    right(history, said, replied)
""",
        "remembers the beginning": REMEMBERS_THE_BEGINNING,
        "remembers its own words only": """
def remember(history, said, replied):
    history.append({"role": "assistant", "content": replied})
    del history[:-8]
""",
        "calls everybody Laura": EVERYBODY_IS_LAURA,
        "hears always the same": """
right = off_loop
async def off_loop(call, *arguments):
    return "hello" if call == models.hear else await right(call, *arguments)
""",
    },
    "ch2.history_bounded": {
        "remembers everything": """
MOST_TURNS = MOST_WORDS = 10_000
""",
        "remembers the beginning": REMEMBERS_THE_BEGINNING,
        "forgets everything when it is full": """
right = remember
def remember(history, said, replied):
    if len(history) >= 12:
        history.clear()
    right(history, said, replied)
""",
        "takes it for a fault": """
right = remember
def remember(history, said, replied):
    if len(history) >= 14:
        raise MemoryError("the history is full")
    right(history, said, replied)
""",
        "calls everybody Laura": EVERYBODY_IS_LAURA,
    },
    "ch2.activity": {
        "says always the same": """
def metrics():
    return "sessions 1\\nheld_bytes 0\\n"
""",
        "counts who ever came": """
ever = 0
class SessionState(SessionState):
    def __init__(self, socket):
        global ever
        super().__init__(socket)
        ever += 1
def metrics():
    return f"sessions {ever}\\nheld_bytes 0\\n"
""",
        "tells it in JSON": """
def metrics():
    return json.dumps({"sessions": len(sessions), "held_bytes": 0})
""",
        "has no such page": """
pages = None
""",
        "fails while it counts": """
def metrics():
    return f"sessions {sessions.count()}"
""",
    },
    "ch2.released": {
        "waits for a goodbye": WAITS_FOR_A_GOODBYE,
        "keeps everybody": """
@contextmanager
def attached(session):
    sessions.add(session)
    yield
""",
        "counts samples": """
def metrics():
    held = sum(len(session.buffer) // 2 for session in sessions)
    return f"sessions {len(sessions)}\\nheld_bytes {held}\\n"
""",
        "keeps what was said": """
everything = []
class SessionState(SessionState):
    def __init__(self, socket):
        super().__init__(socket)
        everything.append(self.buffer)
def metrics():
    return f"sessions {len(sessions)}\\nheld_bytes {sum(map(len, everything))}\\n"
""",
        "says always the same": """
def metrics():
    return f"sessions {len(sessions)}\\nheld_bytes 0\\n"
""",
    },
    "ch2.leaves_mid_turn": {
        "waits for a goodbye": WAITS_FOR_A_GOODBYE,
        "holds on to a lock": """
one_by_one = asyncio.Lock()
right = answer
async def answer(session, audio):
    await one_by_one.acquire()
    await right(session, audio)
    await (await session.socket.ping())
    one_by_one.release()
""",
        "catches nothing": """
@contextmanager
def attached(session):
    sessions.add(session)
    try:
        yield
    finally:
        session.is_active = False
        sessions.discard(session)
""",
        "exits": """
right = attached
@contextmanager
def attached(session):
    with right(session):
        try:
            yield
        except ConnectionClosed:
            raise SystemExit("nobody there")
""",
        "counts by heart": """
def metrics():
    return "sessions 0\\nheld_bytes 0\\n"
""",
    },
}

CH2 = Servers(chapter=2, wrong=WRONG, odd=ODD)
