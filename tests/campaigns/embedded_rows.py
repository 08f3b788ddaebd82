"""Rows for the embedded model: short texts with a sentiment, a topic or a number, written for this project.

The first rows of each kind are for choosing prompts and grammars, the others for reporting.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["NUMBERS", "SENTIMENTS", "TOPICS", "Rows", "split"]

Rows = list[dict[str, object]]

_POSITIVE = (
    "The staff were friendly and helped us at once.",
    "I loved every minute of this film.",
    "A wonderful little cafe with great cake.",
    "The battery lasts all day, I am very happy with it.",
    "Delicious food and a lovely view.",
    "This book made me smile from start to end.",
    "Fast delivery and excellent quality.",
    "The room was clean, quiet and comfortable.",
    "Best concert I have been to in years.",
    "My children adore this game.",
    "The new update works perfectly.",
    "What a beautiful garden, we will come back.",
    "Great value for the price.",
    "The teacher explains everything clearly and patiently.",
    "I highly recommend this dentist.",
    "The soup was fresh and tasty.",
    "An amazing trip with a fantastic guide.",
    "The headphones sound brilliant.",
    "Our stay was perfect in every way.",
    "The team solved my problem in five minutes.",
    "A charming story with superb actors.",
    "The shoes fit well and look great.",
    "I am impressed by how easy it is to use.",
    "The music was joyful and the crowd was lovely.",
    "Everything arrived early and in perfect condition.",
    "The chef deserves a prize for this dish.",
    "It is the most comfortable chair I have owned.",
    "A brilliant idea, and very well made.",
    "The museum is fascinating, we enjoyed it a lot.",
    "Thank you for the excellent service.",
    "The pool was warm and the kids had fun.",
    "I am so glad I bought this lamp.",
    "Such a kind and generous host.",
    "The lecture was clear and inspiring.",
    "This phone takes gorgeous pictures.",
    "The bread here is simply the best in town.",
    "We had a great evening and laughed a lot.",
    "The colours are bright and the fabric feels soft.",
    "A smooth ride and a polite driver.",
    "It cleans quickly and makes hardly any noise.",
    "The view from the top is breathtaking.",
    "I finished it in one night, it is that good.",
    "My skin feels wonderful after using it.",
    "The support was quick, polite and helpful.",
    "Superb sound and elegant design.",
)
_NEGATIVE = (
    "The food was cold and tasted awful.",
    "I regret buying this, it broke after a day.",
    "A boring film with terrible acting.",
    "The waiter was rude and ignored us.",
    "The room was dirty and smelled of smoke.",
    "The battery dies within an hour.",
    "Worst customer service I have ever had.",
    "The package arrived late and damaged.",
    "This book is dull and far too long.",
    "The app crashes all the time.",
    "We waited two hours and left hungry.",
    "The sound is horrible and the cable is broken.",
    "I am very disappointed with the quality.",
    "The hotel was noisy and overpriced.",
    "A complete waste of money.",
    "The instructions are confusing and wrong.",
    "The soup was salty and the bread was stale.",
    "My order was wrong and nobody cared.",
    "The seat was hard and the train was filthy.",
    "The game is full of bugs and no fun.",
    "It stopped working after the first wash.",
    "The doctor was careless and unfriendly.",
    "An awful experience, never again.",
    "The screen is scratched and too dark.",
    "The beach was crowded and full of trash.",
    "I want my money back, it is useless.",
    "The lecture was a mess and nobody understood it.",
    "The shoes hurt and the sole fell off.",
    "Slow, ugly and expensive.",
    "The driver was late and got lost twice.",
    "The milk was sour and the staff laughed at me.",
    "This lamp flickers and gets dangerously hot.",
    "Poor quality, it fell apart in my hands.",
    "The concert was cancelled and we got no refund.",
    "The water was cold and the towels were dirty.",
    "Their website is broken and the phone line is dead.",
    "A sad, cheap copy of the original.",
    "The meat was raw and the salad was brown.",
    "I hate the new update, everything is slower.",
    "The heating failed and the owner refused to help.",
    "The colours faded after one week.",
    "Nothing but trouble from the first day.",
    "The tour was a disaster, the guide never came.",
    "It leaks, it rattles and it smells.",
    "The chair is unstable and hurts my back.",
)
_SPORTS = (
    "The striker scored twice in the final minutes of the match.",
    "Our team won the championship after a tense game.",
    "The tennis star lost in the second round of the tournament.",
    "She broke the world record in the marathon.",
    "The coach praised the goalkeeper after the cup final.",
    "The cyclist won the last stage of the tour.",
    "Basketball fans cheered as the home team took the lead.",
    "The swimmer took gold in the 200 metres.",
    "The club signed a new defender before the season.",
    "Rain delayed the cricket match for two hours.",
    "The boxer won by knockout in the third round.",
    "The referee sent off two players before half time.",
    "The runner trained in the mountains for the Olympics.",
    "The football league starts again in August.",
    "The golfer finished the round five under par.",
    "The skier fell in the first run of the slalom.",
    "The hockey team lost the playoff in overtime.",
    "The captain lifted the trophy in front of the fans.",
    "He scored a penalty and his team reached the semifinal.",
    "The rugby squad beat their rivals by ten points.",
    "Two athletes were tied in the long jump.",
    "The baseball pitcher threw a perfect game.",
    "The volleyball players celebrated their first medal.",
    "A late goal saved the team from defeat.",
    "The gymnast received the highest score of the day.",
    "The rowing crew won the race by one second.",
    "The driver took pole position for the grand prix.",
    "The coach resigned after six losses in a row.",
    "Thousands watched the derby in the new stadium.",
    "The young player made her debut for the national team.",
)
_TECHNOLOGY = (
    "The new phone has a faster processor and a better camera.",
    "Engineers released a software update that fixes the bug.",
    "The company presented a robot that can fold laundry.",
    "A computer chip with a billion transistors was announced.",
    "The app stores all your photos in the cloud.",
    "Programmers prefer the new version of the language.",
    "The laptop has a bright screen and a long battery life.",
    "Hackers stole passwords from the company's servers.",
    "The browser now blocks trackers by default.",
    "Scientists trained a neural network to read handwriting.",
    "The startup builds sensors for self-driving cars.",
    "A new database can handle millions of queries a second.",
    "The drone flies for forty minutes on one charge.",
    "The website was down because of a server failure.",
    "The operating system gets a new user interface.",
    "Wireless headphones connect over Bluetooth.",
    "The 3D printer makes parts from metal powder.",
    "The search engine uses a new algorithm.",
    "An open source library speeds up image processing.",
    "The smart watch measures your heart rate with a sensor.",
    "The router supports the latest internet standard.",
    "Developers can test the code in a virtual machine.",
    "A quantum computer solved the problem in minutes.",
    "The keyboard is programmable and has no cable.",
    "The video game runs on a new graphics engine.",
    "The encryption protects messages from being read.",
    "The satellite network brings fast internet to islands.",
    "The camera recognises faces with machine learning.",
    "The tablet comes with a digital pen.",
    "Their new software translates speech in real time.",
)
_FOOD = (
    "Add two eggs and a cup of flour to the bowl.",
    "The soup needs more salt and fresh basil.",
    "Bake the bread for forty minutes until it is golden.",
    "The restaurant serves grilled fish with lemon.",
    "Chop the onions and fry them in butter.",
    "She made a chocolate cake for the party.",
    "The chef cooks pasta with tomatoes and garlic.",
    "Try the cheese with pears and honey.",
    "Boil the rice and stir in the vegetables.",
    "The market sells ripe mangoes and fresh bread.",
    "Marinate the chicken in yogurt and spices.",
    "The pizza has a thin crust and lots of mozzarella.",
    "Breakfast was pancakes with maple syrup.",
    "A salad of cucumber, mint and feta is perfect in summer.",
    "The stew simmers for three hours with carrots and beef.",
    "Whisk the cream until it is stiff.",
    "The bakery is famous for its apple pie.",
    "Serve the curry with warm naan.",
    "The dessert was vanilla ice cream with berries.",
    "Roast the potatoes with rosemary and olive oil.",
    "The recipe calls for a spoon of mustard.",
    "They grilled corn and sausages in the garden.",
    "The tea tastes of ginger and lemon.",
    "Spread the jam on a slice of toast.",
    "The noodles come in a spicy broth.",
    "Peel the apples and cut them into thin slices.",
    "The cook seasoned the lamb with thyme.",
    "We ate dumplings filled with pork and cabbage.",
    "The sauce is made of butter, wine and herbs.",
    "A bowl of oatmeal with nuts keeps you full.",
)
_WITH_NUMBERS = (
    "We ordered {n} chairs for the office.",
    "There were {n} people in the room.",
    "She bought {n} apples at the market.",
    "The library has {n} new books this week.",
    "He walked {n} miles on Sunday.",
    "The school has {n} pupils in total.",
    "They planted {n} trees along the road.",
    "I counted {n} birds on the roof.",
    "The box holds {n} pencils.",
    "The bus was late by {n} minutes.",
    "Our farm has {n} cows.",
    "The team scored {n} points in the game.",
    "The hotel has {n} rooms with a view.",
    "My grandmother knitted {n} socks.",
    "The recipe needs {n} eggs.",
    "A total of {n} tickets were sold.",
    "The bridge is {n} metres long.",
    "The museum shows {n} paintings.",
    "We waited for {n} hours at the airport.",
    "The truck carried {n} boxes to the store.",
)


def _numbered(count: int) -> list[tuple[str, int]]:
    """Texts with a number of one to three digits, each text once."""
    chance = random.Random(7)
    rows: dict[str, int] = {}
    while len(rows) < count:
        lowest, highest = chance.choice(((2, 20), (21, 99), (100, 999)))
        number = chance.randint(lowest, highest)
        rows[_WITH_NUMBERS[len(rows) % len(_WITH_NUMBERS)].format(n=number)] = number
    return list(rows.items())


def _labelled(groups: dict[str, Sequence[str]]) -> list[tuple[str, object]]:
    """The texts of all groups in turn, with the name of the group."""
    most = min(map(len, groups.values()))
    return [(texts[position], label) for position in range(most) for label, texts in groups.items()]


SENTIMENTS = _labelled({"positive": _POSITIVE, "negative": _NEGATIVE})
TOPICS = _labelled({"sports": _SPORTS, "technology": _TECHNOLOGY, "food": _FOOD})
NUMBERS = _numbered(90)


def split(rows: Sequence[tuple[str, object]], output: str) -> tuple[Rows, Rows]:
    """The rows for choosing (30) and those for reporting (60), each as ``{"text": …, output: …}``."""
    examples = [{"text": text, output: value} for text, value in rows[:90]]
    return examples[:30], examples[30:]
