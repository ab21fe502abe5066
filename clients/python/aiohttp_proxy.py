import asyncio

import aiohttp
from payload import BODY, URL, report


async def main():
    async with aiohttp.ClientSession(trust_env=True) as session, session.post(URL, data=BODY) as answer:
        return answer.status, await answer.read()


report(*asyncio.run(main()))
