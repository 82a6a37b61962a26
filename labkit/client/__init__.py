"""Clients: one of the plain dialect that notes the times, and one whose session survives.

==============  =================================================================================
`dial`          connecting: addresses, headers, certificates, proxies, refusals in words
`speech`        speaking at the pace of speech
`answers`       reading what servers say, newer ones too, and how long that may take
`plain`         `VoiceClient`, for the plain dialect
`v1`            `SessionClient`, for labkit.v1: one session over as many connections as it takes
`connection`    one of those connections
`conversation`  what such a session says and is told, over all of them
==============  =================================================================================
"""
