"""Clients: one of the plain dialect that notes the times, and one whose session survives.

=============  ==================================================================================
`dial`         connecting: addresses, headers, certificates, proxies, refusals in words
`speech`       speaking at the pace of speech
`deadlines`    how long to wait, and what is said when nothing comes
`foreign`      messages of servers that are newer than the client
`plain`        `VoiceClient`, for the plain dialect
`v1`           `SessionClient`, for labkit.v1: one session over as many connections as it takes
`connection`   one of those connections
`streams`      what goes to the server and comes from it, over all of them
`events`       what a session tells, and one turn of it put together
=============  ==================================================================================
"""
