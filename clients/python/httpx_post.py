import httpx
from payload import BODY, URL, report

answer = httpx.post(URL, content=BODY, timeout=30)
report(answer.status_code, answer.content)
