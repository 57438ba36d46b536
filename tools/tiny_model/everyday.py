# ruff: noqa: SIM905
"""Tables of everyday facts, which facts.py turns into questions and sentences."""

from __future__ import annotations

CAPITALS = dict(
    row.split(":")
    for row in """France:Paris|Germany:Berlin|Italy:Rome|Spain:Madrid|Portugal:Lisbon|Greece:Athens
England:London|Ireland:Dublin|Austria:Vienna|Poland:Warsaw|Sweden:Stockholm|Norway:Oslo
Denmark:Copenhagen|Finland:Helsinki|Belgium:Brussels|the Netherlands:Amsterdam|Hungary:Budapest
Switzerland:Bern|Russia:Moscow|Turkey:Ankara|Egypt:Cairo|Kenya:Nairobi|India:New Delhi
China:Beijing|Japan:Tokyo|South Korea:Seoul|Thailand:Bangkok|Australia:Canberra|Canada:Ottawa
the United States:Washington|Mexico:Mexico City|Brazil:Brasilia|Argentina:Buenos Aires|Peru:Lima
Chile:Santiago|Cuba:Havana|Ukraine:Kyiv|the Czech Republic:Prague|Scotland:Edinburgh
Iceland:Reykjavik|Colombia:Bogota|Indonesia:Jakarta|Vietnam:Hanoi|Morocco:Rabat|Israel:Jerusalem
Romania:Bucharest|Croatia:Zagreb|Serbia:Belgrade|Bulgaria:Sofia|Nigeria:Abuja|Ethiopia:Addis Ababa
the Philippines:Manila|New Zealand:Wellington|Saudi Arabia:Riyadh|Iran:Tehran|Iraq:Baghdad
Pakistan:Islamabad|Venezuela:Caracas|Uruguay:Montevideo|Ecuador:Quito|Bolivia:La Paz
Luxembourg:Luxembourg City|Wales:Cardiff|Nepal:Kathmandu|Mongolia:Ulaanbaatar""".replace(
        "\n", "|"
    ).split("|")
)
COLORS = {
    "the sky": "blue", "grass": "green", "snow": "white", "the sun": "yellow", "a banana": "yellow",
    "a lemon": "yellow", "a tomato": "red", "blood": "red", "a strawberry": "red", "coal": "black",
    "milk": "white", "a carrot": "orange", "a frog": "green", "chocolate": "brown",
    "a pig": "pink", "a crow": "black", "the sea": "blue", "a leaf": "green", "salt": "white",
    "a fire truck": "red", "an orange": "orange", "a cucumber": "green", "a raven": "black",
}  # fmt: skip
OPPOSITES = dict(
    row.split(":")
    for row in """hot:cold|big:small|tall:short|fast:slow|happy:sad|day:night|up:down|left:right
open:closed|old:young|hard:soft|light:dark|full:empty|good:bad|wet:dry|loud:quiet|high:low
strong:weak|rich:poor|early:late|near:far|black:white|yes:no|in:out|clean:dirty|thick:thin
first:last|begin:end|win:lose|buy:sell|push:pull|true:false|long:short|love:hate|awake:asleep
heavy:light|inside:outside|above:below|before:after|front:back|summer:winter|sweet:sour
""".strip().replace("\n", "|").split("|")
)  # fmt: skip
SOUNDS = {
    "dog": "woof", "cat": "meow", "cow": "moo", "sheep": "baa", "duck": "quack", "pig": "oink",
    "horse": "neigh", "lion": "roar", "owl": "hoot", "frog": "croak", "bee": "buzz",
    "mouse": "squeak", "snake": "hiss", "rooster": "cock-a-doodle-doo", "wolf": "howl",
}  # fmt: skip
BABIES = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "duck": "duckling",
    "pig": "piglet", "horse": "foal", "lion": "cub", "bear": "cub", "hen": "chick",
    "frog": "tadpole", "goat": "kid", "swan": "cygnet", "goose": "gosling", "deer": "fawn",
}  # fmt: skip
LEGS = {
    "dog": "4", "cat": "4", "cow": "4", "horse": "4", "bird": "2", "hen": "2", "spider": "8",
    "ant": "6", "bee": "6", "fish": "0", "snake": "0", "person": "2", "duck": "2", "fly": "6",
    "elephant": "4", "frog": "4", "butterfly": "6", "mouse": "4", "worm": "0", "lion": "4",
}  # fmt: skip
FOOD = {
    "rabbit": "carrots and grass", "cow": "grass", "cat": "fish and mice", "dog": "meat and bones",
    "mouse": "cheese and seeds", "panda": "bamboo", "squirrel": "nuts", "bee": "nectar",
    "horse": "hay and oats", "frog": "flies", "lion": "meat", "hen": "seeds", "monkey": "bananas",
    "bear": "fish, berries and honey", "koala": "leaves", "owl": "mice", "penguin": "fish",
}  # fmt: skip
LIVES = {
    "fish": "in water", "bird": "in a nest", "bee": "in a hive", "cow": "on a farm",
    "lion": "in the grassland", "camel": "in the desert", "penguin": "in the cold south",
    "whale": "in the sea", "rabbit": "in a burrow", "bear": "in the forest", "spider": "in a web",
    "monkey": "in the trees", "frog": "by a pond", "polar bear": "in the Arctic",
    "shark": "in the sea", "fox": "in a den", "ant": "in an anthill",
}  # fmt: skip
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """January February March April May June July August September October November
December""".split()
SEASONS = "spring summer autumn winter".split()
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SIZES = """ant bee mouse frog rabbit cat dog sheep pig cow horse elephant whale""".split()
MIXED = {
    ("blue", "yellow"): "green", ("red", "yellow"): "orange", ("red", "blue"): "purple",
    ("red", "white"): "pink", ("black", "white"): "gray",
}  # fmt: skip
JOBS = {
    "teacher": "teaches children", "doctor": "helps sick people", "baker": "bakes bread",
    "farmer": "grows food", "pilot": "flies planes", "cook": "makes meals",
    "firefighter": "puts out fires", "painter": "paints pictures", "writer": "writes books",
    "singer": "sings songs", "tailor": "makes clothes", "gardener": "takes care of plants",
    "dentist": "takes care of teeth", "carpenter": "builds things from wood",
}  # fmt: skip
KINDS = {
    "animal": "dog cat horse lion frog whale bee dolphin".split(),
    "bird": "duck owl eagle penguin swan".split(),
    "fish": "shark trout salmon".split(),
    "fruit": "apple banana pear peach plum cherry orange grape".split(),
    "vegetable": "carrot potato onion cabbage cucumber bean".split(),
    "color": "red blue green yellow purple pink".split(),
    "toy": "doll ball puzzle kite".split(),
    "tool": "hammer saw shovel rake".split(),
}
SHAPES = {"triangle": "3", "square": "4", "rectangle": "4", "pentagon": "5", "hexagon": "6"}

# Single facts: several questions, the answer, and a sentence that states it.
SINGLE: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("How many days are in a week?", "How many days does a week have?"), "7",
     "A week has 7 days."),
    (("How many months are in a year?", "How many months does a year have?"), "12",
     "A year has 12 months."),
    (("How many hours are in a day?", "How many hours does a day have?"), "24",
     "A day has 24 hours."),
    (("How many minutes are in an hour?", "How many minutes does an hour have?"), "60",
     "An hour has 60 minutes."),
    (("How many seconds are in a minute?",), "60", "A minute has 60 seconds."),
    (("How many days are in a year?", "How many days does a year have?"), "365",
     "A year has 365 days."),
    (("How many weeks are in a year?",), "52", "A year has 52 weeks."),
    (("How many seasons are there?", "How many seasons are in a year?"), "4",
     "There are 4 seasons in a year."),
    (("How many fingers does a hand have?", "How many fingers are on one hand?"), "5",
     "A hand has 5 fingers."),
    (("How many toes do you have on two feet?", "How many toes does a person have?"), "10",
     "A person has 10 toes."),
    (("How many eyes does a person have?",), "2", "A person has 2 eyes."),
    (("How many letters are in the alphabet?",), "26", "The alphabet has 26 letters."),
    (("How many planets are there?", "How many planets go around the sun?"), "8",
     "There are 8 planets around the sun."),
    (("How many wheels does a car have?",), "4", "A car has 4 wheels."),
    (("How many wheels does a bicycle have?", "How many wheels does a bike have?"), "2",
     "A bicycle has 2 wheels."),
    (("How many continents are there?",), "7", "There are 7 continents."),
    (("How many is a dozen?", "How many eggs are in a dozen?"), "12", "A dozen is 12."),
    (("What do bees make?", "Who makes honey?"), "Bees make honey.", "Bees make honey."),
    (("What do cows give us?", "Where does milk come from?"), "Milk comes from cows.",
     "Milk comes from cows."),
    (("Where does the sun rise?",), "In the east.", "The sun rises in the east."),
    (("Where does the sun set?",), "In the west.", "The sun sets in the west."),
    (("What is the biggest planet?", "What is the largest planet?"), "Jupiter.",
     "The biggest planet is Jupiter."),
    (("What planet do we live on?", "On which planet do we live?"), "Earth.",
     "We live on the planet Earth."),
    (("Which planet is closest to the sun?",), "Mercury.", "Mercury is closest to the sun."),
    (("Which planet is red?", "What is the red planet?"), "Mars.", "Mars is the red planet."),
    (("What is the biggest animal?", "What is the largest animal?"), "The blue whale.",
     "The biggest animal is the blue whale."),
    (("What is the tallest animal?",), "The giraffe.", "The tallest animal is the giraffe."),
    (("What is the fastest animal on land?", "What is the fastest land animal?"), "The cheetah.",
     "The cheetah is the fastest animal on land."),
    (("What is frozen water?", "What is frozen water called?"), "Ice.", "Frozen water is ice."),
    (("What is ice made of?", "What does ice turn into when it melts?"), "Water.",
     "Ice is made of water."),
    (("What falls from clouds?", "What comes out of clouds?"), "Rain.",
     "Rain falls from clouds."),
    (("What do plants need to grow?",), "Water, light and air.",
     "Plants need water, light and air."),
    (("What is the first month of the year?",), "January.",
     "January is the first month of the year."),
    (("What is the last month of the year?",), "December.",
     "December is the last month of the year."),
    (("What is the first day of the week?",), "Monday.", "Monday is the first day of the week."),
    (("Name the days of the week.", "What are the days of the week?"), ", ".join(DAYS) + ".",
     "The days of the week are " + ", ".join(DAYS) + "."),
    (("Name the four seasons.", "What are the four seasons?"),
     "Spring, summer, autumn and winter.",
     "The four seasons are spring, summer, autumn and winter."),
    (("Name the months of the year.", "What are the months of the year?"),
     ", ".join(MONTHS) + ".", "The months are " + ", ".join(MONTHS) + "."),
    (("Name three colors.", "Tell me three colors."), "Red, blue and green.",
     "Red, blue and green are colors."),
    (("Name three animals.", "Tell me three animals."), "A dog, a cat and a horse.",
     "Dogs, cats and horses are animals."),
    (("Name three fruits.", "Tell me three fruits."), "Apples, pears and bananas.",
     "Apples, pears and bananas are fruits."),
    (("What do we see with?", "What do you see with?"), "With our eyes.",
     "We see with our eyes."),
    (("What do we hear with?", "What do you hear with?"), "With our ears.",
     "We hear with our ears."),
    (("What do we smell with?",), "With our nose.", "We smell with our nose."),
    (("What shines at night?", "What do you see in the sky at night?"),
     "The moon and the stars.", "The moon and the stars shine at night."),
    (("What is the Earth's only moon called?", "What goes around the Earth?"), "The moon.",
     "The moon goes around the Earth."),
    (("At what temperature does water boil?",), "At 100 degrees Celsius.",
     "Water boils at 100 degrees Celsius."),
    (("At what temperature does water freeze?",), "At 0 degrees Celsius.",
     "Water freezes at 0 degrees Celsius."),
    (("What is the largest country?", "What is the biggest country?"), "Russia.",
     "The biggest country is Russia."),
    (("What is the first letter of the alphabet?",), "A.", "A is the first letter."),
    (("What is the last letter of the alphabet?",), "Z.", "Z is the last letter."),
    (("What lives in the sea?", "Which animals live in the sea?"),
     "Fish, whales and dolphins live in the sea.", "Fish, whales and dolphins live in the sea."),
    (("Is the sun a star?",), "Yes.", "The sun is a star."),
    (("What is the sun?",), "The sun is a star.", "The sun is a star."),
    (("What is the moon?",), "The moon goes around the Earth and shines at night.",
     "The moon goes around the Earth and shines at night."),
    (("Why is the sky blue?",), "Air scatters blue light more than red light.",
     "The sky is blue because air scatters blue light more than red light."),
    (("What is water made of?",), "Water is made of hydrogen and oxygen.",
     "Water is made of hydrogen and oxygen."),
    (("What do we breathe?", "What do people breathe?"), "Air.", "We breathe air."),
    (("What is bread made of?", "What do you need to make bread?"), "Flour, water and salt.",
     "Bread is made of flour, water and salt."),
    (("What is cheese made of?",), "Cheese is made of milk.", "Cheese is made of milk."),
    (("What do hens lay?", "What does a hen lay?"), "Hens lay eggs.", "Hens lay eggs."),
    (("What is the smallest continent?",), "Australia.", "Australia is the smallest continent."),
    (("What is the biggest continent?", "What is the largest continent?"), "Asia.",
     "Asia is the biggest continent."),
    (("What is the biggest ocean?", "What is the largest ocean?"), "The Pacific Ocean.",
     "The biggest ocean is the Pacific Ocean."),
    (("What is the highest mountain?", "What is the tallest mountain in the world?"),
     "Mount Everest.", "The highest mountain is Mount Everest."),
    (("What is the longest river in Africa?",), "The Nile.",
     "The Nile is the longest river in Africa."),
    (("Which planet has big rings?", "Which planet has rings?"), "Saturn.",
     "Saturn has big rings."),
    (("What language do people speak in France?", "What do people speak in France?"), "French.",
     "In France, people speak French."),
    (("What language do people speak in Spain?",), "Spanish.", "In Spain, people speak Spanish."),
    (("What language do people speak in Germany?",), "German.",
     "In Germany, people speak German."),
    (("What do you wear on your feet?", "What goes on your feet?"), "Shoes and socks.",
     "You wear shoes and socks on your feet."),
    (("What do you use to write?", "What do we write with?"), "A pen or a pencil.",
     "We write with a pen or a pencil."),
    (("What do you use to cut paper?",), "Scissors.", "You cut paper with scissors."),
    (("What tells the time?", "What shows the time?"), "A clock.", "A clock tells the time."),
    (("Where do you read books?", "Where can I find many books?"), "In a library.",
     "There are many books in a library."),
    (("Which animal has a trunk?", "What animal has a long trunk?"), "The elephant.",
     "The elephant has a long trunk."),
    (("Which animal has a long neck?",), "The giraffe.", "The giraffe has a long neck."),
    (("Which animal has black and white stripes?", "Which animal has stripes?"), "The zebra.",
     "The zebra has black and white stripes."),
    (("Which animal is the king of the animals?",), "The lion.",
     "The lion is called the king of the animals."),
    (("Can birds fly?", "Can a bird fly?"), "Yes, most birds can fly.", "Most birds can fly."),
    (("Can penguins fly?", "Can a penguin fly?"), "No, but penguins can swim.",
     "Penguins cannot fly, but they can swim."),
    (("Can fish swim?", "Can a fish swim?"), "Yes.", "Fish can swim."),
    (("Can pigs fly?", "Can a pig fly?", "Can dogs fly?"), "No.", "Pigs cannot fly."),
    (("What are the primary colors?",), "Red, yellow and blue.",
     "The primary colors are red, yellow and blue."),
    (("What colors are in a rainbow?", "What are the colors of the rainbow?"),
     "Red, orange, yellow, green, blue, indigo and violet.",
     "A rainbow is red, orange, yellow, green, blue, indigo and violet."),
    (("Is fire hot or cold?", "Is fire hot?"), "Fire is hot.", "Fire is hot."),
    (("Is ice hot or cold?", "Is ice cold?"), "Ice is cold.", "Ice is cold."),
    (("Which season is the coldest?",), "Winter.", "Winter is the coldest season."),
    (("Which season is the warmest?",), "Summer.", "Summer is the warmest season."),
)  # fmt: skip
