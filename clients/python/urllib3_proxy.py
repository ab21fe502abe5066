import os

import urllib3
from payload import BODY, URL, report

proxy = urllib3.util.parse_url(os.environ["http_proxy"])
http = urllib3.ProxyManager(
    f"http://{proxy.netloc}",
    proxy_headers=urllib3.make_headers(proxy_basic_auth=proxy.auth),
)
answer = http.request("POST", URL, body=BODY, timeout=30, retries=False)
report(answer.status, answer.data)
