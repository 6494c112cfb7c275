async def start(self, resources, fabric, claim):
    async with scope(resources) as s:
        job = await s.jobs.get(claim)
        # ruleid: network-inside-scope
        await self._fabric.start(job)
        # ruleid: network-inside-scope
        await asyncio.sleep(1)
        # ruleid: network-inside-scope
        ray.get(job)
    # ok: network-inside-scope
    outcome = await self._fabric.start(job)
    # ok: network-inside-scope
    await asyncio.sleep(1)
    async with recording(resources), scope(resources) as s:
        # ok: network-inside-scope
        await s.jobs.record_start(claim, outcome)
        # ruleid: network-inside-scope
        await resources.qubic.balance("A")
