"""Steers an agent through the genuine OCSClient. Arguments: instance id, password, steps in JSON. Prints the results.

A step is [operation, action, keywords], ["until", operation, field, value] ["call", procedure suffix, args, kwargs] or
["raw", procedure, args, kwargs]."""
import json
import sys
import time

from ocs.client_http import ControlClientError
from ocs.ocs_client import OCSClient

instance, password, steps = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = OCSClient(instance, privs=password or 1, args=[])


def take(step):
    if step[0] == 'until':
        _, op, field, value = step
        limit = time.time() + 15
        while time.time() < limit:
            reply = getattr(client, op).status()
            if reply.session.get(field) == value:
                break
            time.sleep(0.05)
        return list(reply)
    if step[0] in ('call', 'raw'):
        kind, procedure, args, kwargs = step
        if kind == 'call':
            procedure = client._client.agent_addr + procedure
        try:
            return client._client.call(procedure, *args, **kwargs)
        except ControlClientError as error:
            return {'error': error.args[0][4], 'args': error.args[0][5]}
    op, action, kwargs = step
    return list(getattr(getattr(client, op), action)(**kwargs))


results = [take(step) for step in steps]
doc = client.delay.start.__doc__ if hasattr(client, 'delay') else None
print(json.dumps({'doc': doc, 'results': results}))
