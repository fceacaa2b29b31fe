"""Waits until the genuine registry agent shows an agent as the last argument says (`expired` or `alive`), and prints it."""
import json
import sys
import time

from ocs.client_http import ControlClientError
from ocs.ocs_client import OCSClient

address, wanted = sys.argv[1], sys.argv[2] == 'expired'
limit = time.time() + 30
found = None
while time.time() < limit:
    try:
        data = OCSClient('registry', args=[]).main.status().session.get('data', {})
    except ControlClientError:
        data = {}
    found = data.get(address)
    if found is not None and found['expired'] == wanted and found['op_codes']:
        break
    time.sleep(0.1)
print(json.dumps(found))
