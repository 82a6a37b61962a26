"""The one text domain of the three embedded models.

What people say to the course's assistant, and what it answers: digits and numbers, timers,
names, lights, small talk, yes and no, the course's own terms, and an honest "I only know …" for
the rest.
The recogniser learns to hear these sentences, the answerer to reply to them, and the voice to
speak the replies.

User sentences are in transcript form (lower case, numbers as words, no punctuation but
apostrophes). Everything follows from the `random.Random` that is passed in, so a recipe that
states its seed states its data. A tenth of all sentences, chosen by hash, is never trained on.
"""

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

__all__ = [
    "ASK_NAME",
    "ASK_NUMBER",
    "ASK_TIMER",
    "NAMES",
    "Exchange",
    "Memory",
    "commands",
    "dialogue",
    "digits",
    "exchange",
    "is_held_out",
    "number",
    "reply_sentence",
    "utterance",
]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()

NAMES = tuple(
    """ada adam adele agnes ahmed alan albert alex alice amir amy  andrea andrew angela anna
    anton aria arthur ava barbara ben bella bernard beth bill bob boris brian bruno carl carla
    carlos carol chloe chris clara claire cleo colin dan dana daniel david dean diana diego dora
    doris dylan edgar edith elena eli elias ella ellen elliot elsa emil emily emma eric erin
    ernest esther ethan eva felix fiona flora frank fred freya gabriel george gina grace grant
    greta gus  hannah harold harry hassan heidi helen henry hugo ian ida igor ines ingrid
    irene iris isaac isabel ivan ivy jack jacob jade jake james jane jason jean jenny jill joan
    joe john jonas joseph joy juan judy julia june kai karen  kate keith kim kira kurt lara
    laura  leah leo leon liam lila lily linda lisa liz louis lucas lucy  luke luna mark
    maria marie martin mary max maya megan mia mike mila miles milo mira mona nadia nancy naomi
    neil nick nina noah nora olga oliver oscar otto owen pablo pat paul paula penny peter phil
    pia priya quinn rachel ralph ray rita robert robin rosa rose ruth ryan sally sam samir sandra
    sara sean sofia stan stella steve sue susan tara ted theo thomas tim tina toby tom tony uma
    vera victor  walter wanda will yara yuki zara zoe""".split()
)
_ROOMS = (
    "kitchen", "bedroom", "living room", "hall", "office", "garage", "bathroom", "garden",
    "attic", "dining room",
)  # fmt: skip
_UNITS = ("second", "minute", "hour")

_ONLY = (
    "I only know timers, lights, names, numbers and this course.",
    "Sorry, I only know this course, timers, lights, names and numbers.",
    "I only know a few things: timers, lights, names, numbers and this course.",
)

_GREETINGS = {
    "hello": "Hello! How can I help?",
    "hi": "Hi! What can I do for you?",
    "hi there": "Hi! What can I do for you?",
    "hello there": "Hello! How can I help?",
    "hey": "Hi! What can I do for you?",
    "good morning": "Good morning! How can I help?",
    "good afternoon": "Good afternoon! How can I help?",
    "good evening": "Good evening! How can I help?",
}
_SMALL_TALK = {
    "how are you": "I am fine, thank you.",
    "how are you today": "I am fine, thank you.",
    "how do you do": "I am fine, thank you.",
    "are you there": "Yes, I am here.",
    "can you hear me": "Yes, I can hear you.",
    "thank you": "You are welcome.",
    "thanks": "You are welcome.",
    "thanks a lot": "You are welcome.",
    "thank you very much": "You are welcome.",
    "that was good": "Glad to hear it.",
    "well done": "Thank you, I do my best.",
    "goodbye": "Goodbye! Have a nice day.",
    "bye": "Goodbye! Have a nice day.",
    "see you later": "See you later!",
    "good night": "Good night! Sleep well.",
    "who are you": "I am the assistant of this course.",
    "what is your name": "My name is Lab. I am the assistant of this course.",
    "are you a robot": "I am a small model on your own machine.",
    "are you real": "I am a small model on your own machine.",
    "where do you run": "I run on your own machine, without a network.",
    "how big are you": "I am very small, a few million numbers.",
    "who made you": "I was trained by the recipes of this course.",
    "tell me a joke": "A packet walks into a bar. The bar says: you are late.",
    "tell me another joke": "I know a joke about buffers, but you have to wait for it.",
    "sing a song": "I would rather not. My voice is for speaking.",
    "i am tired": "Take a break. I will wait here.",
    "i am happy": "Glad to hear it.",
    "i am bored": "Try the next chapter of the course.",
}
_YES_NO = {
    "yes": "Good. What can I do for you?",
    "yes please": "Good. Tell me what I can do.",
    "yes i do": "Good. Tell me what I can do.",
    "yeah": "Good. What can I do for you?",
    "yep": "Good. What can I do for you?",
    "sure": "Good. What can I do for you?",
    "of course": "Good. What can I do for you?",
    "that is right": "Glad to hear it.",
    "that's right": "Glad to hear it.",
    "okay": "Okay. Tell me what I can do.",
    "all right": "Okay. Tell me what I can do.",
    "no": "Okay. I will wait here.",
    "no thank you": "Okay. I will wait here.",
    "no thanks": "Okay. I will wait here.",
    "nope": "Okay. I will wait here.",
    "not now": "Okay. I will wait here.",
    "not really": "Okay. I will wait here.",
    "never mind": "Okay. I will wait here.",
    "that is wrong": "Sorry. Please say it again.",
    "that's wrong": "Sorry. Please say it again.",
    "no that is wrong": "Sorry. Please say it again.",
    "maybe": "Take your time. I will wait here.",
    "maybe later": "Take your time. I will wait here.",
    "wait": "Take your time. I will wait here.",
    "i do not know": "Take your time. I will wait here.",
    "i don't know": "Take your time. I will wait here.",
}
"""Short answers. The assistant asks nothing, so each leads back to what it can do."""
_LEADS = ("yes", "yeah", "no", "okay", "yes please", "no thanks", "no wait", "all right")
"""What people say before a request."""
_LEAD_SHARE = 0.06
"""Share of the requests that begin with one."""
_HELP = {
    "what can you do": "I set timers, switch lights, and remember names and numbers.",
    "help": "Ask me about timers, lights, names, numbers or this course.",
    "help me": "Ask me about timers, lights, names, numbers or this course.",
    "what do you know": "I know timers, lights, names, numbers and this course.",
    "what can i ask you": "Ask me about timers, lights, names, numbers or this course.",
    "what can i say": "Say: set a timer for five minutes. Or ask what jitter is.",
}

_TERMS = {
    "back pressure": "Back pressure makes a fast sender wait for a slow reader.",
    "jitter": "Jitter is how much the delay changes from packet to packet.",
    "latency": "Latency is the time from the end of speech to the first reply.",
    "a chunk": "A chunk is the audio in one message.",
    "a frame": "A frame is a short fixed window of audio.",
    "an utterance": "An utterance is one stretch of speech.",
    "a turn": "A turn is what you say and what you hear back.",
    "a session": "A session is one conversation. It may outlive a connection.",
    "a connection": "A connection is one open web socket.",
    "a web socket": "A web socket is a connection that stays open in both directions.",
    "a buffer": "A buffer keeps audio until somebody takes it.",
    "a transcript": "A transcript is the text of what was heard.",
    "endpointing": "Endpointing decides that you have stopped speaking.",
    "barge in": "Barge in means that you speak while I am speaking.",
    "a sample": "A sample is one number of the sound wave.",
    "the sample rate": "The sample rate here is sixteen thousand samples a second.",
    "packetisation": "Packetisation is the wait until a chunk is full.",
    "the event loop": "The event loop runs one task at a time. Never block it.",
    "a time out": "A time out ends what takes too long.",
    "a codec": "A codec turns sound into fewer bytes and back.",
    "overhead": "Overhead is what each message costs besides its audio.",
    "throughput": "Throughput is how much gets through in a second.",
    "a percentile": "A percentile says how many turns were at least that fast.",
    "voice activity detection": "Voice activity detection tells speech from silence.",
    "speech recognition": "Speech recognition turns audio into words.",
    "speech synthesis": "Speech synthesis turns words into audio.",
    "a language model": "A language model writes the next word of a reply.",
    "a token": "A token is a small piece of a word.",
    "a resume token": "A resume token proves that a session is yours.",
    "quantisation": "Quantisation stores the numbers of a model in fewer bits.",
    "the real time factor": "The real time factor is work time over audio time.",
    "a heartbeat": "A heartbeat is a ping that shows a connection is alive.",
}
_HOW = {
    "what chunk size should i use": "Use chunks of twenty to one hundred milliseconds.",
    "how long should a chunk be": "Use chunks of twenty to one hundred milliseconds.",
    "how big should a chunk be": "Use chunks of twenty to one hundred milliseconds.",
    "what happens with big chunks": "Big chunks make the listener wait longer.",
    "what happens with small chunks": "Small chunks cost more messages and more overhead.",
    "how do i resume a session": "Connect again and send your resume token.",
    "what happens when the connection drops": "The session waits, and you can resume it.",
    "how do i end an utterance": "Send the text end stream.",
    "what does end stream do": "End stream asks for the answer to what you said.",
    "what does ping do": "Ping asks if I am alive, and I answer pong.",
    "what does the server send back": "The server sends a transcript and a spoken reply.",
    "how do i measure latency": "Run the latency exercise in chapter five.",
    "what is in chapter one": "In chapter one you build a voice server.",
    "what is in chapter two": "Chapter two is about the state of a session.",
    "what is in chapter three": "Chapter three is about the protocol.",
    "what is in chapter four": "In chapter four you break the server and mend it.",
    "what is in chapter five": "In chapter five you measure latency.",
    "what is in chapter six": "Chapter six is about taking turns.",
    "why is my server slow": "Look where the time goes. The waterfall shows it.",
    "why does my server freeze": "A model call blocks the event loop. Move it to a thread.",
    "which audio format do you want": "I want sixteen bit audio, one channel, sixteen kilohertz.",
    "what format should i send": "Send sixteen bit audio, one channel, sixteen kilohertz.",
    "how do i stop the server": "Press control and c.",
    "how do i start the server": "Run the command lab kit serve.",
}
_ASK_TERM = (
    "what is {}",
    "what's {}",
    "explain {}",
    "tell me about {}",
    "what does {} mean",
    "please explain {}",
    "can you explain {}",
    "so what is {}",
    "please tell me about {}",
    "can you tell me about {}",
)

_ELSEWHERE = {
    "what is the capital of {}": "france spain japan brazil egypt canada norway india kenya peru",
    "what is the weather like in {}": "paris london rome berlin madrid tokyo vienna boston",
    "will it rain in {} tomorrow": "paris london rome berlin madrid tokyo vienna boston",
    "who wrote {}": "hamlet dracula emma faust macbeth",
    "who is the president of {}": "france brazil egypt india kenya peru",
    "how tall is {}": "mount everest|the eiffel tower|a giraffe|a horse",
    "how old is {}": "the moon|the sun|the earth|the queen",
    "how do i cook {}": "pasta rice eggs soup potatoes fish",
    "play some {}": "music jazz rock piano",
    "what is the price of {}": "gold silver bread milk oil",
    "who won the {}": "football game|world cup|tennis match|election",
    "call {}": "my mother|my brother|a taxi|the doctor",
    "order a {}": "pizza taxi burger coffee",
    "translate {} into french": "water bread love house",
    "what is the meaning of {}": "life love art",
    "book a {}": "flight hotel table",
    "how far is {}": "the moon|the sun|paris|london",
    "what is the news {}": "today|this week|in london",
    "send an email to {}": "my mother|my brother|the doctor|the office",
    "do you like {}": "dogs cats football chocolate music",
}

ASK_NAME = (
    "what is my name",
    "what's my name",
    "do you remember my name",
    "who am i",
    "tell me my name",
    "do you know my name",
    "can you remember my name",
    "say my name",
)
ASK_NUMBER = (
    "what is my number",
    "what's my number",
    "what was the number",
    "what is the code",
    "do you remember the number",
    "tell me my number",
    "what was my code",
)
ASK_TIMER = (
    "what is the timer set to",
    "how long is the timer",
    "what timer did i set",
    "is there a timer",
    "how long did i set the timer for",
    "is a timer running",
    "do i have a timer",
)
_CANCEL_TIMER = (
    "cancel the timer",
    "stop the timer",
    "delete the timer",
    "please cancel the timer",
    "cancel my timer",
    "turn off the timer",
)

# Sentences without a slot: there is nothing to generalise from, so none of them is held out.
_FIXED = frozenset(
    phrase
    for phrases in (
        _GREETINGS,
        _SMALL_TALK,
        _YES_NO,
        _HELP,
        _HOW,
        ASK_NAME,
        ASK_NUMBER,
        ASK_TIMER,
        _CANCEL_TIMER,
    )
    for phrase in phrases
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the user says and what the assistant answers.

    Attributes:
        user: The user's sentence, in transcript form.
        assistant: The reply.
        kind: What it is about.
        facts: What the reply must contain, in transcript form.
    """

    user: str
    assistant: str
    kind: str
    facts: tuple[str, ...] = ()


@dataclass(slots=True)
class Memory:
    """What was said so far in a dialogue."""

    name: str | None = None
    number: str | None = None
    timer: str | None = None
    lights: dict[str, str] = field(default_factory=dict)


def is_held_out(text: str) -> bool:
    """Whether `text` belongs to the tenth of all sentences that is never trained on.

    Sentences that have no slot to fill ("how are you") are never held out.
    """
    words = " ".join(re.sub(r"[^a-z' ]+", " ", text.lower()).split())
    if words in _FIXED:
        return False
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4]) % 10 == 0


def number(value: int) -> str:
    """The words of a number from 0 to 100."""
    if value < 10:
        return DIGITS[value]
    if value < 20:
        return _TEENS[value - 10]
    if value == 100:
        return "one hundred"
    tens, ones = divmod(value, 10)
    return _TENS[tens - 2] + (f" {DIGITS[ones]}" if ones else "")


def digits(rng: random.Random, low: int = 3, high: int = 7) -> str:
    """A string of `low` to `high` digits, as words."""
    return " ".join(rng.choice(DIGITS) for _ in range(rng.randint(low, high)))


def _duration(rng: random.Random) -> str:
    unit = rng.choice(_UNITS)
    count = rng.randint(1, 12 if unit == "hour" else 59)
    return f"{number(count)} {unit}{'' if count == 1 else 's'}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _greet(rng: random.Random, memory: Memory) -> Exchange:
    said, reply = rng.choice(list(_GREETINGS.items()))
    return Exchange(said, reply, "greeting")


def _small_talk(rng: random.Random, memory: Memory) -> Exchange:
    said, reply = rng.choice(list(_SMALL_TALK.items()))
    return Exchange(said, reply, "small_talk")


def _yes_no(rng: random.Random, memory: Memory) -> Exchange:
    said, reply = rng.choice(list(_YES_NO.items()))
    return Exchange(said, reply, "yes_no")


def _help(rng: random.Random, memory: Memory) -> Exchange:
    said, reply = rng.choice(list(_HELP.items()))
    return Exchange(said, reply, "help")


def _tell_name(rng: random.Random, memory: Memory) -> Exchange:
    memory.name = name = rng.choice(NAMES)
    form = rng.choice(("my name is {}", "i am {}", "call me {}", "hello my name is {}", "i'm {}",
                       "hi i am {}", "please call me {}"))  # fmt: skip
    reply = rng.choice(("Nice to meet you, {}.", "Hello, {}. Nice to meet you."))
    return Exchange(form.format(name), reply.format(name.capitalize()), "name_told", (name,))


def _ask_name(rng: random.Random, memory: Memory) -> Exchange:
    said = rng.choice(ASK_NAME)
    if memory.name is None:
        return Exchange(said, "You have not told me your name.", "name_unknown", ("not told",))
    return Exchange(said, f"Your name is {memory.name.capitalize()}.", "name_asked", (memory.name,))


def _tell_number(rng: random.Random, memory: Memory) -> Exchange:
    memory.number = value = digits(rng)
    form = rng.choice(("my number is {}", "remember the number {}", "remember {}",
                       "please remember {}", "the code is {}", "my code is {}"))  # fmt: skip
    return Exchange(form.format(value), f"I will remember {value}.", "number_told", (value,))


def _ask_number(rng: random.Random, memory: Memory) -> Exchange:
    said = rng.choice(ASK_NUMBER)
    if memory.number is None:
        return Exchange(said, "You have not told me a number.", "number_unknown", ("not told",))
    return Exchange(said, f"Your number is {memory.number}.", "number_asked", (memory.number,))


def _repeat(rng: random.Random, memory: Memory) -> Exchange:
    value = digits(rng, 2, 8)
    form = rng.choice(("say {}", "repeat {}", "repeat after me {}", "please say {}", "{}"))
    return Exchange(form.format(value), f"{_sentence(value)}.", "digits", (value,))


def _set_timer(rng: random.Random, memory: Memory) -> Exchange:
    memory.timer = time = _duration(rng)
    form = rng.choice(("set a timer for {}", "set the timer to {}", "start a timer for {}",
                       "please set a timer for {}", "timer for {}", "wake me in {}",
                       "remind me in {}", "start a {} timer", "give me {}",
                       "can you set a timer for {}"))  # fmt: skip
    singular = time[:-1] if "{} timer" in form and time.endswith("s") else time
    return Exchange(form.format(singular), f"Timer set for {time}.", "timer_set", (time,))


def _ask_timer(rng: random.Random, memory: Memory) -> Exchange:
    said = rng.choice(ASK_TIMER)
    if memory.timer is None:
        return Exchange(said, "There is no timer.", "timer_unknown", ("no timer",))
    return Exchange(said, f"Your timer is set for {memory.timer}.", "timer_asked", (memory.timer,))


def _cancel_timer(rng: random.Random, memory: Memory) -> Exchange:
    said = rng.choice(_CANCEL_TIMER)
    if memory.timer is None:
        return Exchange(said, "There is no timer.", "timer_unknown", ("no timer",))
    memory.timer = None
    return Exchange(said, "The timer is cancelled.", "timer_cancelled", ("cancelled",))


def _set_light(rng: random.Random, memory: Memory) -> Exchange:
    room = rng.choice(_ROOMS)
    if rng.random() < 0.3:
        level = number(rng.randrange(5, 96, 5))
        memory.lights[room] = f"at {level} percent"
        form = rng.choice(("dim the {} light to {} percent", "set the {} light to {} percent",
                           "dim the {} to {} percent",
                           "please set the {} light to {} percent"))  # fmt: skip
        said, state = form.format(room, level), f"at {level} percent"
    else:
        state = memory.lights[room] = rng.choice(("on", "off"))
        form = rng.choice(("turn {s} the {r} light", "turn the {r} light {s}",
                           "switch {s} the {r} light", "switch the {r} light {s}",
                           "turn {s} the lights in the {r}", "please turn {s} the {r} light",
                           "lights {s} in the {r}"))  # fmt: skip
        said = form.format(r=room, s=state)
    return Exchange(said, f"The {room} light is {state}.", "light_set", (room, state))


def _ask_light(rng: random.Random, memory: Memory) -> Exchange:
    known = bool(memory.lights) and rng.random() < 0.8
    room = rng.choice(sorted(memory.lights) if known else _ROOMS)
    said = rng.choice(("is the {} light on", "what about the {} light", "how is the {} light",
                       "is the light on in the {}", "what is the {} light doing"))  # fmt: skip
    if room not in memory.lights:
        reply = f"I have not touched the {room} light."
        return Exchange(said.format(room), reply, "light_unknown", ("not touched", room))
    state = memory.lights[room]
    return Exchange(
        said.format(room), f"The {room} light is {state}.", "light_asked", (room, state)
    )


def _term(rng: random.Random, memory: Memory) -> Exchange:
    if rng.random() < 0.4:
        said, reply = rng.choice(list(_HOW.items()))
        return Exchange(said, reply, "how", (reply,))
    term, reply = rng.choice(list(_TERMS.items()))
    said = rng.choice(_ASK_TERM).format(term)
    return Exchange(said, reply, "term", (reply,))


def _elsewhere(rng: random.Random, memory: Memory) -> Exchange:
    form, things = rng.choice(list(_ELSEWHERE.items()))
    choices = things.split("|") if "|" in things else things.split()
    return Exchange(
        form.format(rng.choice(choices)), rng.choice(_ONLY), "elsewhere", ("i only know",)
    )


_NO_REQUESTS = frozenset(("greeting", "small_talk", "yes_no", "digits"))

_Maker = Callable[[random.Random, Memory], Exchange]
_MAKERS: tuple[tuple[_Maker, float], ...] = (
    (_greet, 0.4),
    (_small_talk, 1.0),
    (_yes_no, 1.0),
    (_help, 0.3),
    (_tell_name, 1.6),
    (_ask_name, 1.0),
    (_tell_number, 1.4),
    (_ask_number, 1.0),
    (_repeat, 1.6),
    (_set_timer, 1.8),
    (_ask_timer, 0.7),
    (_cancel_timer, 0.5),
    (_set_light, 1.6),
    (_ask_light, 0.8),
    (_term, 2.4),
    (_elsewhere, 1.4),
)


def exchange(rng: random.Random, memory: Memory) -> Exchange:
    """The next exchange of a dialogue; `memory` moves on."""
    makers, weights = zip(*_MAKERS, strict=True)
    made: Exchange = rng.choices(makers, weights)[0](rng, memory)
    if made.kind in _NO_REQUESTS or rng.random() >= _LEAD_SHARE:
        return made
    return replace(made, user=f"{rng.choice(_LEADS)} {made.user}")


def dialogue(rng: random.Random) -> list[Exchange]:
    """A dialogue of one to nine exchanges."""
    memory = Memory()
    return [exchange(rng, memory) for _ in range(rng.randint(1, 9))]


def utterance(rng: random.Random) -> str:
    """One user sentence."""
    return exchange(rng, Memory()).user


def reply_sentence(rng: random.Random) -> str:
    """One sentence as the assistant speaks it."""
    exchanges = dialogue(rng)
    sentences = re.split(r"(?<=[.!?]) ", rng.choice(exchanges).assistant)
    return rng.choice(sentences)


def commands(rng: random.Random, count: int) -> list[str]:
    """Different command sentences of a finite grammar: timers, lights and digits."""
    makers = (_set_timer, _set_light, _repeat)
    found: dict[str, None] = {}
    while len(found) < count:
        found[rng.choice(makers)(rng, Memory()).user] = None
    return list(found)
