"""From speech to spoken reply.

In the order in which a turn goes through it: `hearing` keeps what is said and finds the speech in
it, `turn_taking` decides who has the turn, `history` keeps what was exchanged before, `turn` is
what a session sees of a pipeline, `engines` are the four that detect, recognise, answer and speak,
called and checked, `scheduling` decides who is next, `sentences` cuts the text, `speakable` and
`normalisation` make it fit to be heard, `reply` writes and speaks at once, and `pipeline` is one
turn through it all. `models` goes from names to files, `loading` from files to a pipeline, `hub`
fetches models, and `scripted` holds engines for tests.
"""
