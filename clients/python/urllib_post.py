from urllib.request import Request, urlopen

from payload import BODY, URL, report

with urlopen(Request(URL, data=BODY, method="POST"), timeout=30) as answer:
    report(answer.status, answer.read())
