"""From speech to spoken reply.

In the order in which a turn goes through it: `hearing` keeps what is said and finds the speech in
it, `turn_taking` decides who has the turn, `turn` keeps what was exchanged before, `engines`
are the four that detect, recognise, answer and speak, called and checked, `scheduling` decides who
is next, `sentences` cuts the text, `speakable` and `normalisation` make it fit to be heard, and
`pipeline` is one turn through it all. `models` goes from names to loaded engines, `hub` fetches
models, and `scripted` holds engines for tests.
"""
