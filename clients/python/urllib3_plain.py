import urllib3
from payload import BODY, URL, report

answer = urllib3.PoolManager().request("POST", URL, body=BODY, timeout=30, retries=False)
report(answer.status, answer.data)
