"""The facts that the bundled model is trained to know.

Tables only: `tasks.py` turns them into questions. Torch-free and without imports from the rest of
the package, so that training and evaluation can read them anywhere.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Country(NamedTuple):
    """A country as it is written inside a sentence, with "the" where English wants it."""

    name: str
    capital: str
    currency: str
    continent: str


class Element(NamedTuple):
    """A chemical element."""

    name: str
    symbol: str
    number: int


_COUNTRY_LINES: Final = """
Afghanistan|Kabul|Afghan afghani|Asia
Albania|Tirana|Albanian lek|Europe
Algeria|Algiers|Algerian dinar|Africa
Andorra|Andorra la Vella|euro|Europe
Angola|Luanda|Angolan kwanza|Africa
Argentina|Buenos Aires|Argentine peso|South America
Armenia|Yerevan|Armenian dram|Asia
Australia|Canberra|Australian dollar|Oceania
Austria|Vienna|euro|Europe
Azerbaijan|Baku|Azerbaijani manat|Asia
the Bahamas|Nassau|Bahamian dollar|North America
Bahrain|Manama|Bahraini dinar|Asia
Bangladesh|Dhaka|Bangladeshi taka|Asia
Barbados|Bridgetown|Barbadian dollar|North America
Belarus|Minsk|Belarusian ruble|Europe
Belgium|Brussels|euro|Europe
Belize|Belmopan|Belize dollar|North America
Benin|Porto-Novo|West African CFA franc|Africa
Bhutan|Thimphu|Bhutanese ngultrum|Asia
Bolivia|Sucre|Bolivian boliviano|South America
Bosnia and Herzegovina|Sarajevo|convertible mark|Europe
Botswana|Gaborone|Botswana pula|Africa
Brazil|Brasilia|Brazilian real|South America
Brunei|Bandar Seri Begawan|Brunei dollar|Asia
Bulgaria|Sofia|euro|Europe
Burkina Faso|Ouagadougou|West African CFA franc|Africa
Burundi|Gitega|Burundian franc|Africa
Cambodia|Phnom Penh|Cambodian riel|Asia
Cameroon|Yaounde|Central African CFA franc|Africa
Canada|Ottawa|Canadian dollar|North America
Cape Verde|Praia|Cape Verdean escudo|Africa
the Central African Republic|Bangui|Central African CFA franc|Africa
Chad|N'Djamena|Central African CFA franc|Africa
Chile|Santiago|Chilean peso|South America
China|Beijing|renminbi|Asia
Colombia|Bogota|Colombian peso|South America
the Comoros|Moroni|Comorian franc|Africa
Costa Rica|San Jose|Costa Rican colon|North America
Croatia|Zagreb|euro|Europe
Cuba|Havana|Cuban peso|North America
Cyprus|Nicosia|euro|Europe
the Czech Republic|Prague|Czech koruna|Europe
Denmark|Copenhagen|Danish krone|Europe
Djibouti|Djibouti City|Djiboutian franc|Africa
Dominica|Roseau|East Caribbean dollar|North America
the Dominican Republic|Santo Domingo|Dominican peso|North America
Ecuador|Quito|US dollar|South America
Egypt|Cairo|Egyptian pound|Africa
El Salvador|San Salvador|US dollar|North America
Eritrea|Asmara|Eritrean nakfa|Africa
Estonia|Tallinn|euro|Europe
Eswatini|Mbabane|Swazi lilangeni|Africa
Ethiopia|Addis Ababa|Ethiopian birr|Africa
Fiji|Suva|Fijian dollar|Oceania
Finland|Helsinki|euro|Europe
France|Paris|euro|Europe
Gabon|Libreville|Central African CFA franc|Africa
the Gambia|Banjul|Gambian dalasi|Africa
Georgia|Tbilisi|Georgian lari|Asia
Germany|Berlin|euro|Europe
Ghana|Accra|Ghanaian cedi|Africa
Greece|Athens|euro|Europe
Grenada|St. George's|East Caribbean dollar|North America
Guatemala|Guatemala City|Guatemalan quetzal|North America
Guinea|Conakry|Guinean franc|Africa
Guinea-Bissau|Bissau|West African CFA franc|Africa
Guyana|Georgetown|Guyanese dollar|South America
Haiti|Port-au-Prince|Haitian gourde|North America
Honduras|Tegucigalpa|Honduran lempira|North America
Hungary|Budapest|Hungarian forint|Europe
Iceland|Reykjavik|Icelandic krona|Europe
India|New Delhi|Indian rupee|Asia
Indonesia|Jakarta|Indonesian rupiah|Asia
Iran|Tehran|Iranian rial|Asia
Iraq|Baghdad|Iraqi dinar|Asia
Ireland|Dublin|euro|Europe
Israel|Jerusalem|new shekel|Asia
Italy|Rome|euro|Europe
Ivory Coast|Yamoussoukro|West African CFA franc|Africa
Jamaica|Kingston|Jamaican dollar|North America
Japan|Tokyo|Japanese yen|Asia
Jordan|Amman|Jordanian dinar|Asia
Kazakhstan|Astana|Kazakhstani tenge|Asia
Kenya|Nairobi|Kenyan shilling|Africa
Kiribati|Tarawa|Australian dollar|Oceania
Kuwait|Kuwait City|Kuwaiti dinar|Asia
Kyrgyzstan|Bishkek|Kyrgyzstani som|Asia
Laos|Vientiane|Lao kip|Asia
Latvia|Riga|euro|Europe
Lebanon|Beirut|Lebanese pound|Asia
Lesotho|Maseru|Lesotho loti|Africa
Liberia|Monrovia|Liberian dollar|Africa
Libya|Tripoli|Libyan dinar|Africa
Liechtenstein|Vaduz|Swiss franc|Europe
Lithuania|Vilnius|euro|Europe
Luxembourg|Luxembourg City|euro|Europe
Madagascar|Antananarivo|Malagasy ariary|Africa
Malawi|Lilongwe|Malawian kwacha|Africa
Malaysia|Kuala Lumpur|Malaysian ringgit|Asia
the Maldives|Male|Maldivian rufiyaa|Asia
Mali|Bamako|West African CFA franc|Africa
Malta|Valletta|euro|Europe
Mauritania|Nouakchott|Mauritanian ouguiya|Africa
Mauritius|Port Louis|Mauritian rupee|Africa
Mexico|Mexico City|Mexican peso|North America
Micronesia|Palikir|US dollar|Oceania
Moldova|Chisinau|Moldovan leu|Europe
Monaco|Monaco City|euro|Europe
Mongolia|Ulaanbaatar|Mongolian tugrik|Asia
Montenegro|Podgorica|euro|Europe
Morocco|Rabat|Moroccan dirham|Africa
Mozambique|Maputo|Mozambican metical|Africa
Myanmar|Naypyidaw|Myanmar kyat|Asia
Namibia|Windhoek|Namibian dollar|Africa
Nauru|Yaren|Australian dollar|Oceania
Nepal|Kathmandu|Nepalese rupee|Asia
the Netherlands|Amsterdam|euro|Europe
New Zealand|Wellington|New Zealand dollar|Oceania
Nicaragua|Managua|Nicaraguan cordoba|North America
Niger|Niamey|West African CFA franc|Africa
Nigeria|Abuja|Nigerian naira|Africa
North Korea|Pyongyang|North Korean won|Asia
North Macedonia|Skopje|Macedonian denar|Europe
Norway|Oslo|Norwegian krone|Europe
Oman|Muscat|Omani rial|Asia
Pakistan|Islamabad|Pakistani rupee|Asia
Palau|Ngerulmud|US dollar|Oceania
Panama|Panama City|Panamanian balboa|North America
Papua New Guinea|Port Moresby|Papua New Guinean kina|Oceania
Paraguay|Asuncion|Paraguayan guarani|South America
Peru|Lima|Peruvian sol|South America
the Philippines|Manila|Philippine peso|Asia
Poland|Warsaw|Polish zloty|Europe
Portugal|Lisbon|euro|Europe
Qatar|Doha|Qatari riyal|Asia
Romania|Bucharest|Romanian leu|Europe
Russia|Moscow|Russian ruble|Europe
Rwanda|Kigali|Rwandan franc|Africa
Saint Lucia|Castries|East Caribbean dollar|North America
Samoa|Apia|Samoan tala|Oceania
San Marino|San Marino City|euro|Europe
Sao Tome and Principe|Sao Tome|dobra|Africa
Saudi Arabia|Riyadh|Saudi riyal|Asia
Senegal|Dakar|West African CFA franc|Africa
Serbia|Belgrade|Serbian dinar|Europe
Seychelles|Victoria|Seychellois rupee|Africa
Sierra Leone|Freetown|Sierra Leonean leone|Africa
Singapore|Singapore City|Singapore dollar|Asia
Slovakia|Bratislava|euro|Europe
Slovenia|Ljubljana|euro|Europe
the Solomon Islands|Honiara|Solomon Islands dollar|Oceania
Somalia|Mogadishu|Somali shilling|Africa
South Africa|Pretoria|South African rand|Africa
South Korea|Seoul|South Korean won|Asia
South Sudan|Juba|South Sudanese pound|Africa
Spain|Madrid|euro|Europe
Sri Lanka|Colombo|Sri Lankan rupee|Asia
Sudan|Khartoum|Sudanese pound|Africa
Suriname|Paramaribo|Surinamese dollar|South America
Sweden|Stockholm|Swedish krona|Europe
Switzerland|Bern|Swiss franc|Europe
Syria|Damascus|Syrian pound|Asia
Taiwan|Taipei|New Taiwan dollar|Asia
Tajikistan|Dushanbe|Tajikistani somoni|Asia
Tanzania|Dodoma|Tanzanian shilling|Africa
Thailand|Bangkok|Thai baht|Asia
Togo|Lome|West African CFA franc|Africa
Tonga|Nuku'alofa|Tongan paanga|Oceania
Trinidad and Tobago|Port of Spain|Trinidad and Tobago dollar|North America
Tunisia|Tunis|Tunisian dinar|Africa
Turkey|Ankara|Turkish lira|Asia
Turkmenistan|Ashgabat|Turkmenistan manat|Asia
Tuvalu|Funafuti|Australian dollar|Oceania
Uganda|Kampala|Ugandan shilling|Africa
Ukraine|Kyiv|Ukrainian hryvnia|Europe
the United Arab Emirates|Abu Dhabi|UAE dirham|Asia
the United Kingdom|London|pound sterling|Europe
the United States|Washington|US dollar|North America
Uruguay|Montevideo|Uruguayan peso|South America
Uzbekistan|Tashkent|Uzbekistani som|Asia
Vanuatu|Port Vila|Vanuatu vatu|Oceania
Venezuela|Caracas|Venezuelan bolivar|South America
Vietnam|Hanoi|Vietnamese dong|Asia
Yemen|Sanaa|Yemeni rial|Asia
Zambia|Lusaka|Zambian kwacha|Africa
Zimbabwe|Harare|Zimbabwe Gold|Africa
"""

_ELEMENT_NAMES: Final = """
hydrogen H helium He lithium Li beryllium Be boron B carbon C nitrogen N oxygen O fluorine F
neon Ne sodium Na magnesium Mg aluminium Al silicon Si phosphorus P sulfur S chlorine Cl argon Ar
potassium K calcium Ca scandium Sc titanium Ti vanadium V chromium Cr manganese Mn iron Fe
cobalt Co nickel Ni copper Cu zinc Zn gallium Ga germanium Ge arsenic As selenium Se bromine Br
krypton Kr rubidium Rb strontium Sr yttrium Y zirconium Zr niobium Nb molybdenum Mo technetium Tc
ruthenium Ru rhodium Rh palladium Pd silver Ag cadmium Cd indium In tin Sn antimony Sb
tellurium Te iodine I xenon Xe caesium Cs barium Ba
"""

_OPPOSITES: Final = """
hot cold, big small, tall short, fast slow, happy sad, light dark, open closed, up down, left
right, old young, early late, full empty, hard soft, high low, rich poor, strong weak, wet dry,
clean dirty, loud quiet, thick thin, wide narrow, deep shallow, heavy weightless, true false,
first last, inside outside, day night, love hate, win lose, buy sell, push pull, start stop, give
take, above below, near far, easy difficult, cheap expensive, brave cowardly, smooth rough, sharp
blunt, sweet bitter, alive dead, awake asleep, good bad, yes no, black white, begin end, come go,
friend enemy, front back, north south, east west, summer winter, victory defeat, question answer,
arrive leave, accept refuse, always never, many few, public private, simple complex, tight loose
"""

_PLURALS: Final = """
child children, mouse mice, man men, woman women, foot feet, tooth teeth, goose geese, person
people, ox oxen, leaf leaves, knife knives, wife wives, life lives, wolf wolves, half halves,
shelf shelves, thief thieves, loaf loaves, city cities, baby babies, berry berries, fly flies,
country countries, box boxes, bus buses, church churches, dish dishes, fox foxes, glass glasses,
brush brushes, cat cats, dog dogs, tree trees, house houses, book books, river rivers, car cars,
apple apples, potato potatoes, tomato tomatoes, hero heroes, sheep sheep, fish fish, deer deer,
cactus cacti, analysis analyses, crisis crises, phenomenon phenomena, criterion criteria, key keys
"""


def _parse_countries() -> tuple[Country, ...]:
    return tuple(Country(*line.split("|")) for line in _COUNTRY_LINES.strip().splitlines())


def _parse_elements() -> tuple[Element, ...]:
    words = _ELEMENT_NAMES.split()
    pairs = zip(words[::2], words[1::2], strict=True)
    return tuple(Element(name, symbol, n) for n, (name, symbol) in enumerate(pairs, start=1))


def _parse_pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for entry in text.split(","):
        first, second = entry.split()
        pairs.append((first, second))
    return tuple(pairs)


COUNTRIES: Final = _parse_countries()
ELEMENTS: Final = _parse_elements()
OPPOSITES: Final = _parse_pairs(_OPPOSITES)
PLURALS: Final = _parse_pairs(_PLURALS)
WEEKDAYS: Final = (
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
)
MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

# Words for records, lists and copying; the tokenizer learns nearly all of them as one token.
WORDS: Final = tuple(
    """
amber anchor apple arrow autumn badge bamboo banner barrel basket beacon bell birch blanket bottle
branch brick bridge bronze brush bucket button cabin cable camel candle canyon carpet castle cedar
cherry circle cliff clock cloud clover coral cotton crystal curtain daisy desert diamond dragon
drum eagle ember engine falcon feather fern fiddle flame flute forest fountain galaxy garden
garlic ginger glacier granite grape guitar hammer harbor harvest hazel helmet honey horizon island
ivory jacket jasmine jewel jungle kettle kitten ladder lagoon lantern lemon lily linen lion lotus
magnet mango maple marble meadow melon mirror monsoon mountain needle nickel oasis ocean olive
onyx orange orbit orchid otter owl palace panda paper parrot pearl pebble pencil pepper piano
pigeon pillow pine pirate planet plum pocket pond poppy prairie pyramid quartz quill rabbit radar
raven ribbon ridge river robin rocket rose ruby saddle sage salmon sand sapphire scarf shadow
shell shield silver smoke snow spark spice spider spoon spring stable star statue stone storm
stream sugar summit sunset swan tablet temple thistle thunder tiger timber toast topaz torch tower
tractor trumpet tulip tunnel turtle valley vanilla velvet violet violin volcano wagon walnut water
whale wheat whistle willow window winter wolf wool yellow zebra acorn album almond arch armor
aspen atlas attic bacon ballad basin beaver bench beret bison blossom bonnet border boulder
bracelet breeze bubble buffalo butter cactus cargo carrot cave cello chapel chestnut chimney cider
cinema circus cobalt cocoa comet compass cookie copper cradle crane creek cricket crown cube curry
cushion dagger dawn delta dolphin donkey dune eclipse elbow elm falafel fence ferry fig finch
flint fog fossil fox frost gazelle geyser glove goose gravel grove gull hamlet heron hill hive
igloo iron jaguar jelly kayak keel koala lake lamp lava leaf lizard lobster log magpie mask melody
mint mole moss moth mustard nest nutmeg oak oar octopus onion oyster pasta peach pelican petal
pickle plow prism pumpkin raft rain reef rice road root sail salt seal silk sparrow spruce squid
stork straw swallow syrup tent thorn tide trail tray trout tundra tusk vase vest vine wasp wave
wing wren yarn
""".split()
)

PEOPLE: Final = tuple(
    """
Adam Alice Amir Anna Ben Carlos Chen Clara Daniel David Elena Emma Eva Felix Fatima George Grace
Hana Hugo Ivan Jack James Jane John Julia Karim Kate Laura Leo Lina Lucas Maria Mark Mia Nina Noah
Olga Omar Oscar Paul Peter Priya Rosa Sam Sara Simon Sofia Tom Victor Zoe
""".split()
)

CITIES: Final = tuple(
    """
Amsterdam Athens Berlin Cairo Dublin Hanoi Helsinki Lima Lisbon London Madrid Nairobi Oslo Ottawa
Paris Prague Rome Seoul Tokyo Vienna Warsaw
""".split()
)

JOBS: Final = tuple(
    """
teacher doctor farmer pilot baker nurse painter singer writer lawyer driver cook
""".split()
)

COLORS: Final = tuple("red blue green yellow black white orange purple brown pink".split())
