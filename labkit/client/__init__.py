"""Clients: one of the plain dialect that notes the times, and one whose session survives.

==============  ===================================================================================
`dial`          connects: addresses, headers, certificates, proxies, refusals in words
`speech`        sends audio at the pace of speech
`answers`       waits for answers of any dialect, and says what did not come
`plain`         `VoiceClient`: turns over one connection, for the plain dialect of any server
`turn`          one such turn while it happens, and what is known of it then
`foreign`       understands what servers say in that dialect, those of others as well
`v1`            `SessionClient`, for labkit.v1: resumes one session over many connections
`conversation`  both streams of such a session, whatever carries them, and what the server owes
`events`        what is told of it, and the answer that this makes up
==============  ===================================================================================
"""
