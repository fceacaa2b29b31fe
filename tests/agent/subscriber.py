"""Prints every event of a wildcard topic as a line of JSON. Arguments: router URL, topic."""
import json
import os
import sys

from autobahn.twisted.wamp import ApplicationRunner, ApplicationSession
from autobahn.wamp.types import SubscribeOptions
from twisted.internet.defer import inlineCallbacks


# Twisted logs to standard output, which is ours alone.
out = os.fdopen(os.dup(1), 'w', buffering=1)
os.dup2(2, 1)


class Subscriber(ApplicationSession):
    @inlineCallbacks
    def onJoin(self, _details):
        def event(*args, details=None, **kwargs):
            print(json.dumps([details.topic, args, kwargs], allow_nan=False), file=out)
        yield self.subscribe(event, sys.argv[2], SubscribeOptions(match='wildcard', details=True))
        print('["subscribed"]', file=out)


ApplicationRunner(sys.argv[1], 'test_realm').run(Subscriber)
