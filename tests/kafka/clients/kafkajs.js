// kafkajs against a gateway: node kafkajs.js BOOTSTRAP. Prints one JSON line of what it saw.
const { Kafka, logLevel } = require('kafkajs')

// A reader beyond the end commits that it begins anew, and does so.
async function readsAgain(kafka) {
  const consumer = kafka.consumer({ groupId: 'lost' })
  await consumer.connect()
  await consumer.subscribe({ topics: ['js'], fromBeginning: true })
  const crashed = new Promise((_, reject) => consumer.on('consumer.crash', ({ payload }) => reject(payload.error)))
  const found = new Promise((resolve) => {
    consumer.run({ eachMessage: async ({ partition, message }) => partition === 0 && resolve(message.offset) })
    consumer.seek({ topic: 'js', partition: 0, offset: '1000000' })
  })
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error('nothing is read again')), 20000).unref())
  const first = await Promise.race([found, crashed, late])
  await consumer.disconnect()
  return first
}

async function main(bootstrap) {
  const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING })
  const admin = kafka.admin()
  const producer = kafka.producer()
  const transactional = kafka.producer({ transactionalId: 'js', maxInFlightRequests: 1, idempotent: true })
  const consumer = kafka.consumer({ groupId: 'js' })
  await Promise.all([admin, producer, transactional, consumer].map((each) => each.connect()))
  const created = await admin.createTopics({ topics: [{ topic: 'js', numPartitions: 2 }] })

  const messages = Array.from({ length: 50 }, (_, n) => ({ key: `k${n}`, value: `v${n}`, headers: { n: `${n}` } }))
  await producer.send({ topic: 'js', messages, acks: -1 })
  for (const end of ['abort', 'commit']) {
    const transaction = await transactional.transaction()
    await transaction.send({ topic: 'js', messages: [{ key: end, value: end }] })
    await transaction[end]()
  }

  const values = []
  let late
  const arrived = new Promise((resolve) => (late = resolve))
  await consumer.subscribe({ topics: ['js'], fromBeginning: true })
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`only ${values.length} of 51 records came`)), 20000).unref()
    consumer.run({
      eachMessage: async ({ message }) => {
        values.push(message.value.toString())
        if (values.length === 51) resolve()
        if (values.length === 52) late()
      },
    })
  })
  // A reader at the end, between an aborted transaction and a committed one, must get over the first to the second.
  for (const end of ['abort', 'commit']) {
    const transaction = await transactional.transaction()
    await transaction.send({ topic: 'js', messages: [{ partition: 0, value: `late ${end}` }] })
    await transaction[end]()
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
  const stuck = setTimeout(() => console.error('the reader is stuck behind an aborted transaction') || process.exit(1), 20000)
  await arrived
  clearTimeout(stuck)
  await consumer.stop()
  await admin.resetOffsets({ groupId: 'js', topic: 'js', earliest: true })
  const reset = (await admin.fetchOffsets({ groupId: 'js', topics: ['js'] }))[0].partitions.map((each) => each.offset)
  const again = await readsAgain(kafka)
  const groups = (await admin.listGroups()).groups.map((group) => group.groupId)
  await Promise.all([consumer, producer, transactional, admin].map((each) => each.disconnect()))
  console.log(JSON.stringify({ created, values: values.sort(), reset, again, groups }))
}

main(process.argv[2]).catch((error) => {
  console.error(error)
  process.exit(1)
})
