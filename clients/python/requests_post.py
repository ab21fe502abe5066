import requests
from payload import BODY, URL, report

answer = requests.post(URL, data=BODY, timeout=30)
report(answer.status_code, answer.content)
